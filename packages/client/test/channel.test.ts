import { describe, expect, it } from 'vitest'
import { Channel, REPLY_TIMEOUT_MS, type Reply } from '../src/channel'
import { FakeServer, ManualTimers } from './support/fake_server'

function world() {
  const server = new FakeServer()
  const timers = new ManualTimers()
  const seen: unknown[] = []
  let channel!: Channel
  const transport = server.transport({ opened: () => undefined, closed: () => undefined, pause: () => 0, message: (message) => channel.receive(message) })
  channel = new Channel(transport, timers, {
    frame: (event) => seen.push(event),
    ended: (isNamed) => seen.push(isNamed ? 'ended by name' : 'ended'),
    heartbeat: (_, cursor, age) => seen.push(`heartbeat ${cursor} ${age}`),
  })
  const replies: Reply[] = []
  return { server, timers, channel, seen, replies, keep: (reply: Reply) => void replies.push(reply) }
}

describe('the channel', () => {
  it('matches replies by their ref and marks messages with the join', async () => {
    const { server, channel, replies, keep } = world()
    channel.push('mutate', {}, keep)
    expect(server.unread()).toEqual([])
    channel.join({ a: 1 }, keep)
    channel.push('mutate', { b: 2 }, keep)
    const [join, push] = [await server.next('phx_join'), await server.next('mutate')]
    expect([join.joinRef, push.joinRef, push.ref === join.ref]).toEqual([join.ref, join.ref, false])
    server.refuse(push, 'busy')
    server.reply(join, 'yes')
    server.reply(join, 'twice')
    expect(replies).toEqual([
      { status: 'error', response: { code: 'busy', message: 'busy in words' } },
      { status: 'ok', response: 'yes' },
    ])
  })

  it('tells what was not answered in time, once', async () => {
    const { server, timers, channel, replies, keep } = world()
    channel.join({}, keep)
    const join = await server.next('phx_join')
    timers.pass(REPLY_TIMEOUT_MS)
    server.reply(join, 'late')
    expect(replies).toEqual([{ status: 'timeout' }])
  })

  it('passes nothing of an earlier join on', async () => {
    const { server, timers, channel, seen, replies, keep } = world()
    channel.join({}, keep)
    const first = await server.next('phx_join')
    channel.push('mutate', {}, keep)
    const push = await server.next('mutate')
    channel.join({}, keep)
    server.reply(push, 'stale')
    server.reply(first, 'stale')
    server.message(first.joinRef, null, 'phx_close', {})
    expect([replies, seen, timers.delays()]).toEqual([[], [], [REPLY_TIMEOUT_MS]])
    server.reply(await server.next('phx_join'), 'fresh')
    expect(replies).toEqual([{ status: 'ok', response: 'fresh' }])
  })

  it('tells data frames, ends and heartbeats apart', async () => {
    const { server, channel, seen, keep } = world()
    channel.join({}, keep)
    await server.next('phx_join')
    server.send('rows', {})
    server.send('tomorrow', {})
    server.heartbeat('k')
    server.heartbeat(null)
    server.close('phx_error')
    server.message(null, null, 'phx_close', {})
    channel.receive({ joinRef: null, ref: null, topic: 'elsewhere', event: 'rows', payload: {} })
    expect(seen).toEqual(['rows', 'tomorrow', 'heartbeat k null', 'heartbeat null null', 'ended by name', 'ended'])
  })
})
