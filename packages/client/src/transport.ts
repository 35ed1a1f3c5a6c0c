/**
 * The seam to the network, and the one file that names WebSocket and the package `phoenix`.
 * Phoenix's Socket connects, reconnects, sends heartbeats and frames messages. Its Channel is not used: it rejoins by
 * timers of its own, and a join here has to wait until every earlier commit is in the store (see `connection`).
 */
import { Socket } from 'phoenix'

/** One message, in the fields of its JSON array. */
export interface Message {
  readonly joinRef: string | null
  readonly ref: string | null
  readonly topic: string
  readonly event: string
  readonly payload: unknown
}

/** What a transport reports. Messages of an older connection never arrive after `opened` of a newer one. */
export interface TransportEvents {
  opened(): void
  /** `comeBack` is false when the server closed with 1000, "do not come back". */
  closed(comeBack: boolean): void
  message(message: Message): void
  /** How many milliseconds to wait before the next attempt. */
  pause(): number
}

/** What the client needs from a network. */
export interface Transport {
  /** Connects, and goes on trying until `disconnect`. */
  connect(): void
  disconnect(): void
  /** A ref not used before on this transport. */
  makeRef(): string
  /** Sends on the open connection; without one the message is dropped. */
  send(message: Message): void
}

/** Makes a transport that reports to `events`. */
export type TransportFactory = (events: TransportEvents) => Transport

/** What is needed of a WebSocket class: the browser's, or that of a package such as `ws`. */
export type WebSocketClass = new (url: string, protocols?: string | string[]) => { close(code?: number, reason?: string): void }

/** The close code that means "do not come back". */
const CLOSE_NORMAL = 1000

/**
 * Wraps a WebSocket class so that closes of our own are remembered: phoenix closes with 1000 itself (heartbeat timeout,
 * hidden page), and the echo must not be read as the server's "do not come back".
 */
function rememberOwnCloses(base: WebSocketClass, closedHere: WeakSet<object>): WebSocketClass {
  function Remembering(url: string, protocols?: string | string[]) {
    const socket = new base(url, protocols)
    const close = socket.close.bind(socket)
    socket.close = (code?: number, reason?: string) => {
      closedHere.add(socket)
      if (code === undefined) close()
      else close(code, reason)
    }
    return socket
  }
  return Remembering as unknown as WebSocketClass
}

/** The JSON that was deflated; null when it cannot be read, which no frame allows. */
async function inflate(deflated: ArrayBuffer): Promise<unknown> {
  try {
    return await new Response(new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate'))).json()
  } catch {
    return null
  }
}

/** Hands messages on in the order in which they came, although inflating takes a moment. */
function inOrder(deliver: (message: Message) => void): ((message: Message) => void) & { forget(): void } {
  let connection = 0
  let last: Promise<void> | null = null
  const receive = (message: Message) => {
    const { payload } = message
    if (last === null && !(payload instanceof ArrayBuffer)) return deliver(message)
    const mine = connection
    const inflated = payload instanceof ArrayBuffer ? inflate(payload) : payload
    const own = Promise.all([inflated, last]).then(([read]) => {
      if (last === own) last = null
      if (mine === connection) deliver({ ...message, payload: read })
    })
    last = own
  }
  /** What is still to be handed on belongs to a connection that is gone. */
  const forget = () => {
    connection += 1
    last = null
  }
  return Object.assign(receive, { forget })
}

/**
 * A transport over phoenix's Socket with `vsn` 2.0.0. `url` is the socket's URL without `/websocket`; `options` are
 * passed to phoenix. Throws where there is no WebSocket class and none was given.
 */
export function phoenixTransport(url: string, webSocket?: WebSocketClass, options: Record<string, unknown> = {}): TransportFactory {
  return (events) => {
    const base = webSocket ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket
    if (base === undefined) throw new Error('there is no WebSocket here (Node has one since 22): give createClient a webSocket, such as that of the package ws')
    const params = typeof DecompressionStream === 'undefined' ? {} : { params: { deflate: '1' } }
    const closedHere = new WeakSet<object>()
    const reconnectAfterMs = () => events.pause()
    const socket = new Socket(url, { ...params, reconnectAfterMs, ...options, vsn: '2.0.0', transport: rememberOwnCloses(base, closedHere) })
    const receive = inOrder((message) => events.message(message))
    socket.onOpen(() => {
      receive.forget()
      events.opened()
    })
    socket.onClose((event) => {
      const ours = typeof event.target === 'object' && event.target !== null && closedHere.has(event.target)
      receive.forget()
      // this phoenix comes back after every close, 1000 included; the client then disconnects
      events.closed(event.code !== CLOSE_NORMAL || ours)
    })
    socket.onMessage(({ join_ref, ref, topic, event, payload }) => receive({ joinRef: join_ref, ref, topic, event, payload }))
    return {
      connect: () => socket.connect(),
      disconnect: () => socket.disconnect(),
      makeRef: () => socket.makeRef(),
      send: ({ joinRef, ref, topic, event, payload }) => {
        // phoenix would keep it and send it on the next connection, whose session it does not belong to
        if (socket.isConnected()) socket.push({ join_ref: joinRef, ref, topic, event, payload })
      },
    }
  }
}
