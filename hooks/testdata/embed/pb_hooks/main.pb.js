// The host notes down every record that the plugin stores.
onRecordAfterCreateSuccess((e) => {
  const note = new Record($app.findCollectionByNameOrId("notes"));
  note.set("text", "stored " + e.record.get("title"));
  $app.save(note);
  e.next();
}, "aiContent");
