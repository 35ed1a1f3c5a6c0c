// A page's socket with a hand on it: messages can be held back in either direction, and let go or lost later.

/** To be called before the page loads. */
export async function holdSocket(page) {
  const hold = { up: false, down: false, cutAfter: null, heldUp: [], opened: 0, routes: [], waiting: [] }
  await page.routeWebSocket(/\/socket\/websocket/, (route) => {
    const server = route.connectToServer()
    hold.opened += 1
    hold.routes.push({ route, server })
    route.onMessage((message) => {
      const isMutate = JSON.parse(message)[3] === 'mutate'
      if (!hold.up || !isMutate) return server.send(message)
      hold.heldUp.push(() => server.send(message))
      for (const told of hold.waiting.splice(0)) told()
    })
    server.onMessage((message) => {
      if (hold.down) return
      route.send(message)
      if (hold.cutAfter === null) return
      hold.cutAfter -= message.length
      if (hold.cutAfter > 0) return
      // once, in the middle of whatever is being sent
      hold.cutAfter = null
      void hold.cut()
    })
  })
  return Object.assign(hold, {
    /** Waits for a `mutate` that is held back; to be armed before it is caused. */
    untilHeld: () => new Promise((resolve) => hold.waiting.push(resolve)),
    /** Sends what was held back after all. */
    letGo: () => hold.heldUp.splice(0).forEach((send) => send()),
    /** Cuts the connection, and all is as it was for the next one. */
    cut: async () => {
      hold.down = hold.up = false
      await Promise.all(hold.routes.splice(0).map(({ route }) => route.close({ code: 1012 })))
    },
  })
}
