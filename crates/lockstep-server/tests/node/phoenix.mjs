// The npm package `phoenix` as it is, and nothing of Lockstep's own: Socket, Channel, and rows in a Map.
// Prints one JSON line for each step; the test that runs it writes to the database in between.
import { Socket } from 'phoenix'

const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket
const say = (step, more) => console.log(JSON.stringify({ step, ...more }))
const rows = new Map()
let key = []
let batch = []

const socket = new Socket(process.argv[2], { transport: WebSocket })
socket.connect()
const channel = socket.channel('sync', { protocol: 1, shapes: [{ ref: 'todos', table: 'todos', scope: { list_id: 1 } }] })

for (const event of ['shape', 'rows', 'ack']) channel.on(event, (payload) => batch.push([event, payload]))
channel.on('commit', ({ cursor }) => {
  const acks = []
  for (const [event, payload] of batch) {
    if (event === 'shape') key = payload.key.map((name) => payload.columns.findIndex((column) => column.name === name))
    if (event === 'ack') acks.push(...payload.mutations.map(({ id, outcome, code }) => [id, outcome, code ?? null]))
    if (event !== 'rows') continue
    if (payload.reset) rows.clear()
    for (const removed of payload.remove ?? []) rows.delete(JSON.stringify(removed))
    for (const row of payload.put ?? []) rows.set(JSON.stringify(key.map((at) => row[at])), row)
  }
  batch = []
  say('commit', { rows: [...rows.values()].map((row) => row[2]).sort(), acks, cursor: typeof cursor })
})

const insert = (id, title) => ({ op: 'insert', table: 'todos', values: { id, list_id: 1, title } })
const steps = {
  mutate() {
    const mutations = [
      { n: '1', id: 'm1', kind: 'ops', ops: [insert(1, 'from phoenix')] },
      { n: '2', id: 'm2', kind: 'ops', ops: [insert(2, 'forbidden')] },
    ]
    channel.push('mutate', { confirmed: '0', mutations }).receive('ok', () => say('taken')).receive('error', (error) => say('refused', error))
  },
  nonsense() {
    channel.push('dance', {}).receive('error', ({ code }) => say('refused', { code }))
  },
  reconnect() {
    // the package joins again by itself, with the same payload
    socket.disconnect(() => socket.connect())
  },
  leave() {
    channel.leave().receive('ok', () => {
      say('left')
      socket.disconnect(() => process.exit(0))
    })
  },
}
channel.join().receive('ok', ({ client, shapes }) => say('joined', { client: typeof client, shapes })).receive('error', (error) => say('refused', error))
process.stdin.setEncoding('utf8')
process.stdin.on('data', (text) => text.split('\n').filter(Boolean).forEach((step) => steps[step]()))
process.stdin.on('end', () => process.exit(1))
