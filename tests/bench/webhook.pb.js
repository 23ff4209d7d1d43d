/// The webhook as a PocketBase user would write it in pb_hooks: check, save, call back, answer.
routerAdd("POST", "/webhooks/modelriver", (e) => {
  const raw = toString(e.request.body)
  const signature = e.request.header.get("mr-signature")
  if (!$security.equal($security.hs256(raw, $os.getenv("MODELRIVER_WEBHOOK_SECRET")), signature)) {
    return e.json(401, { error: "Invalid signature" })
  }

  const event = JSON.parse(raw)
  const data = event.ai_response.data
  const customer = event.customer_data || {}
  const record = new Record($app.findCollectionByNameOrId("aiContent"))
  record.set("title", data.title || "Untitled")
  record.set("body", data.description || data.body || "")
  record.set("category", customer.category || "general")
  record.set("metadata", { ...customer, ai_model: event.meta.model, ai_provider: event.meta.provider })
  record.set("data", data)
  record.set("channelId", event.channel_id)
  record.set("eventName", event.event)
  record.set("userId", customer.user_id || "")
  record.set("source", "modelriver")
  $app.save(record)

  if (event.callback_url) {
    $http.send({
      url: event.callback_url,
      method: "POST",
      headers: {
        "Authorization": "Bearer " + $os.getenv("MODELRIVER_API_KEY"),
        "Content-Type": "application/json",
      },
      body: JSON.stringify({
        data: { ...data, id: record.id, saved_at: new Date().toISOString() },
        task_id: "pocketbase_" + record.id,
        metadata: { database: "pocketbase", table: "aiContent", record_id: record.id },
      }),
      timeout: 30,
    })
  }
  return e.json(200, { received: true })
})
