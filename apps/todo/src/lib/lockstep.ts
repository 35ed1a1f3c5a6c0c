// The one client of the page, and the switch that takes it off the network.
import { createClient, idbStore } from '@lockstep/client'

const OFFLINE_KEY = 'lockstep-todo-offline'

/** The node that served the page also answers its socket, unless ?socket= names another. */
function socketUrl(): string {
  const override = new URLSearchParams(location.search).get('socket')
  if (override) return override
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/socket`
}

export const client = createClient({ url: socketUrl(), store: idbStore() })

/** Remembered for the tab, so that a reload while offline stays offline. */
export function isSwitchedOff(): boolean {
  return sessionStorage.getItem(OFFLINE_KEY) !== null
}

export function switchOff(off: boolean): void {
  if (off) sessionStorage.setItem(OFFLINE_KEY, '1')
  else sessionStorage.removeItem(OFFLINE_KEY)
  client.setOnline(!off)
}

if (isSwitchedOff()) client.setOnline(false)

/** Runs this now if the node answers, else as soon as it does. */
export function whenLive(run: () => void): void {
  const isLive = () => client.status.getSnapshot().connection === 'live'
  if (isLive()) return run()
  const stop = client.status.subscribe(() => {
    if (!isLive()) return
    stop()
    run()
  })
}
