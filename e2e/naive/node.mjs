// The naive node: the protocol of docs/protocol.md, served by the simplest thing that could be right.
//
// At every commit it reads all tables again and sends each session the difference. It scales to
// nothing and forgets clients when it ends, but it has no log, no merge and no resume that could be
// wrong: a browser test that fails here is the fault of the test, the demo or the client.
import { randomUUID } from 'node:crypto'
import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import { Database, Refusal } from './database.mjs'
import { Session } from './session.mjs'

const TRACKED = { lists: null, members: 'list_id', todos: 'list_id' }
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }
/** The built demo. */
export const DIST = fileURLToPath(new URL('../../apps/todo/dist', import.meta.url))

class Node {
  constructor(database) {
    this.database = database
    this.installation = randomUUID()
    this.sessions = new Set()
    this.outcomes = new Map() // client id → outcomes, number 1 first
    this.turn = Promise.resolve()
  }

  /** Everything happens one after another: there is a single database connection and a single truth. */
  inTurn(work) {
    this.turn = this.turn.then(work).catch((error) => {
      console.error(error)
      process.exitCode = 1
    })
    return this.turn
  }

  refresh() {
    return this.database.snapshot()
  }

  async publish(author = null, acks = []) {
    const snapshot = await this.refresh()
    for (const session of this.sessions) session.show(snapshot, session === author ? acks : [])
  }

  async decide(kind, operations) {
    try {
      if (kind !== 'ops' && kind !== 'ops_if') throw new Refusal('unknown_kind', `there is no mutation kind ${kind}`)
      await this.database.mutate(operations)
      return { outcome: 'applied' }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      return { outcome: 'refused', code: error.code, message: error.message }
    }
  }
}

function serveFile(root, request, response) {
  const path = normalize(decodeURIComponent(new URL(request.url, 'http://node').pathname))
  const file = join(root, path)
  const found = existsSync(file) && statSync(file).isFile() ? file : join(root, 'index.html')
  response.writeHead(200, { 'content-type': TYPES[extname(found)] ?? 'application/octet-stream' })
  createReadStream(found).pipe(response)
}

/** Starts a node on 127.0.0.1 (port 0: any); the answer can end it again. */
export async function start({ postgres, port, files = DIST }) {
  const database = await Database.open(postgres, TRACKED)
  const node = new Node(database)
  await database.watch(() => node.inTurn(() => node.publish()))
  const http = createServer((request, response) => serveFile(files, request, response))
  const sockets = new WebSocketServer({ server: http, path: '/socket/websocket' })
  sockets.on('connection', (socket) => node.sessions.add(new Session(socket, node)))
  await new Promise((resolve) => http.listen(port, '127.0.0.1', resolve))
  const stop = async () => {
    for (const socket of sockets.clients) socket.terminate()
    http.closeAllConnections()
    await new Promise((resolve) => http.close(resolve))
    await node.turn
    await database.close()
  }
  return { port: http.address().port, stop }
}
