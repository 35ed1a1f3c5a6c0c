// A node of a test's own, which may be killed: the demo's is everybody's.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

export function startNode({ program, postgres }, port) {
  const env = { ...process.env, LOCKSTEP_DATABASE_URL: postgres }
  return spawn(program, ['serve', '--listen', `127.0.0.1:${port}`], { env, stdio: 'ignore' })
}

export async function kill(node) {
  const ended = once(node, 'exit')
  node.kill('SIGKILL')
  await ended
}
