// What `make demo` adds to a server: a user who may ask. On a server of your own, set the
// create rule of aiRequests in the dashboard instead, and limit the rate.
migrate((app) => {
  const requests = app.findCollectionByNameOrId("aiRequests")
  requests.createRule = '@request.auth.id != ""'
  app.save(requests)

  const user = new Record(app.findCollectionByNameOrId("users"))
  user.setEmail("asker@example.com")
  user.setPassword($os.getenv("DEMO_PASSWORD"))
  app.save(user)
})
