/** The real phoenix Socket over a fake WebSocket: framing, reconnects, and the close code that means "stay away". */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { phoenixTransport, type Transport } from '../src/transport'

class FakeWebSocket {
  static all: FakeWebSocket[] = []
  readyState = 0
  bufferedAmount = 0
  sent: string[] = []
  onopen?: () => void
  onclose?: (event: object) => void
  onerror?: (event: object) => void
  onmessage?: (event: { data: string | ArrayBuffer }) => void
  constructor(readonly url: string) {
    FakeWebSocket.all.push(this)
  }
  static get last(): FakeWebSocket {
    return FakeWebSocket.all.at(-1)!
  }
  send(text: string): void {
    this.sent.push(text)
  }
  close(code = 1005): void {
    this.closed(code)
  }
  opened(): void {
    this.readyState = 1
    this.onopen?.()
  }
  closed(code: number): void {
    this.readyState = 3
    this.onclose?.({ code, target: this })
  }
  receive(...message: unknown[]): void {
    this.onmessage?.({ data: JSON.stringify(message) })
  }
}

let seen: unknown[]
/** of the next attempt */
const pause = 777
let transport: Transport

beforeEach(() => {
  vi.useFakeTimers()
  FakeWebSocket.all = []
  seen = []
  transport = phoenixTransport('ws://node/socket', FakeWebSocket)({
    opened: () => seen.push('opened'),
    closed: (comeBack) => seen.push(comeBack ? 'lost' : 'sent away'),
    message: (message) => seen.push(message),
    pause: () => pause,
  })
})
afterEach(() => {
  transport.disconnect()
  vi.useRealTimers()
})

const DATA = { joinRef: '1', ref: '2', topic: 'sync', event: 'mutate', payload: { a: 1 } }

describe('the phoenix transport', () => {
  it('inflates what was deflated, in the order in which messages came, and nothing of an earlier connection', async () => {
    vi.useRealTimers()
    const deflated = async (payload: unknown) => {
      const stream = new Blob([JSON.stringify(payload)]).stream().pipeThrough(new CompressionStream('deflate'))
      const body = new Uint8Array(await new Response(stream).arrayBuffer())
      const message = new Uint8Array(11 + body.length)
      message.set([2, 4, 4, ...new TextEncoder().encode('syncrows')])
      message.set(body, 11)
      return message.buffer
    }
    const frames = [await deflated({ n: 1, text: 'é'.repeat(50_000) }), await deflated({ n: 2 })]
    transport.connect()
    FakeWebSocket.last.opened()
    expect(FakeWebSocket.last.url).toContain('deflate=1')
    const ofOld = FakeWebSocket.last
    ofOld.onmessage?.({ data: frames[0]! })
    ofOld.closed(1006)
    await vi.waitFor(() => expect(FakeWebSocket.all.length).toBe(2), 5000)
    FakeWebSocket.last.opened()
    seen = []
    FakeWebSocket.last.onmessage?.({ data: frames[0]! })
    FakeWebSocket.last.receive(null, null, 'sync', 'commit', { n: 'c' })
    FakeWebSocket.last.onmessage?.({ data: frames[1]! })
    FakeWebSocket.last.onmessage?.({ data: new Uint8Array([2, 4, 4, ...new TextEncoder().encode('syncrows'), 7, 7]).buffer })
    FakeWebSocket.last.receive(null, null, 'sync', 'ack', { n: 'a' })
    await vi.waitFor(() => expect(seen.length).toBe(5), 5000)
    const events = (seen as { event: string; payload: { n: unknown } | null }[]).map(({ event, payload }) => [event, payload?.n ?? null])
    expect(events).toEqual([['rows', 1], ['commit', 'c'], ['rows', 2], ['rows', null], ['ack', 'a']])
    FakeWebSocket.last.receive(null, null, 'sync', 'ack', { n: 'at once' })
    expect(seen.length).toBe(6)
  })

  it('connects with vsn 2.0.0 and frames messages both ways', () => {
    transport.connect()
    expect(FakeWebSocket.last.url).toBe('ws://node/socket/websocket?deflate=1&vsn=2.0.0')
    FakeWebSocket.last.opened()
    transport.send(DATA)
    expect(FakeWebSocket.last.sent).toEqual(['["1","2","sync","mutate",{"a":1}]'])
    FakeWebSocket.last.receive(null, null, 'sync', 'commit', { cursor: 'k' })
    expect(seen).toEqual(['opened', { joinRef: null, ref: null, topic: 'sync', event: 'commit', payload: { cursor: 'k' } }])
    expect(transport.makeRef()).not.toBe(transport.makeRef())
  })

  it('comes back after a lost connection, without messages of the earlier one', () => {
    transport.connect()
    const first = FakeWebSocket.last
    first.opened()
    first.closed(1006)
    transport.send(DATA)
    vi.advanceTimersByTime(pause - 1)
    expect(FakeWebSocket.all).toHaveLength(1)
    vi.advanceTimersByTime(1)
    expect(FakeWebSocket.all).toHaveLength(2)
    FakeWebSocket.last.opened()
    first.receive(null, null, 'sync', 'rows', {})
    expect([seen, FakeWebSocket.last.sent]).toEqual([['opened', 'lost', 'opened'], []])
  })

  it.each([1001, 1011, 1012, 1013])('takes %i as "come back"', (code) => {
    transport.connect()
    FakeWebSocket.last.opened()
    FakeWebSocket.last.closed(code)
    expect(seen).toEqual(['opened', 'lost'])
  })

  it('takes 1000 from the server as "do not come back", and stays away once disconnected', () => {
    transport.connect()
    FakeWebSocket.last.opened()
    FakeWebSocket.last.closed(1000)
    expect(seen).toEqual(['opened', 'sent away'])
    transport.disconnect()
    vi.advanceTimersByTime(60_000)
    expect(FakeWebSocket.all).toHaveLength(1)
  })

  it('does not take its own 1000 for the server\'s: a heartbeat without an answer reconnects', () => {
    transport.connect()
    FakeWebSocket.last.opened()
    vi.advanceTimersByTime(30_000)
    expect(JSON.parse(FakeWebSocket.last.sent[0]!).slice(2)).toEqual(['phoenix', 'heartbeat', {}])
    vi.advanceTimersByTime(31_000)
    expect(seen).toEqual(['opened', 'lost'])
    vi.advanceTimersByTime(10_000)
    expect(FakeWebSocket.all).toHaveLength(2)
  })

  it('connects again after a disconnect', () => {
    transport.connect()
    FakeWebSocket.last.opened()
    transport.disconnect()
    vi.advanceTimersByTime(1000)
    transport.connect()
    FakeWebSocket.last.opened()
    expect([FakeWebSocket.all.length, seen]).toEqual([2, ['opened', 'lost', 'opened']])
  })

  it('says what is missing where there is no WebSocket', () => {
    vi.stubGlobal('WebSocket', undefined)
    expect(() => phoenixTransport('ws://node/socket')({ opened: () => 0, closed: () => 0, message: () => 0, pause: () => 0 })).toThrow('give createClient a webSocket')
    vi.unstubAllGlobals()
  })
})
