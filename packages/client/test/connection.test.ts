/** The table is total, and its cells keep what the rest relies on. */
import { describe, expect, it } from 'vitest'
import { CONNECTION_TABLE, type ConnectionEvent, type ConnectionState, pauseAfter } from '../src/connection'
import { platformTimers } from '../src/timers'

const STATES: ConnectionState[] = ['offline', 'connecting', 'preparing', 'joining', 'joined', 'retrying', 'refused', 'closed']
const EVENTS: ConnectionEvent[] = [
  'go_online',
  'go_offline',
  'network_changed',
  'close',
  'opened',
  'lost',
  'sent_away',
  'prepared',
  'join_ok',
  'join_failed',
  'join_refused',
  'session_ended',
  'retry_due',
  'restart',
]
const cells = STATES.flatMap((state) => EVENTS.map((event) => ({ state, event, step: CONNECTION_TABLE[state][event] })))

describe('the connection table', () => {
  it('has a cell for every state and event, and no others', () => {
    expect(Object.keys(CONNECTION_TABLE).sort()).toEqual([...STATES].sort())
    for (const state of STATES) expect(Object.keys(CONNECTION_TABLE[state]).sort()).toEqual([...EVENTS].sort())
    for (const { step } of cells) expect(STATES).toContain(step.to)
  })

  it('is left for good by close, from everywhere', () => {
    for (const state of STATES) expect(CONNECTION_TABLE[state].close.to).toBe('closed')
    for (const event of EVENTS) expect(CONNECTION_TABLE.closed[event].to).toBe('closed')
  })

  it('ends the session on every way out of joining and joined, and begins one only by a join that was answered', () => {
    for (const { state, event, step } of cells) {
      const leaves = (state === 'joining' && !['joining', 'joined'].includes(step.to)) || (state === 'joined' && step.to !== 'joined')
      expect({ state, event, ends: step.effects.includes('end_session') }).toEqual({ state, event, ends: leaves })
      const begins = state === 'joining' && event === 'join_ok'
      expect({ state, event, begins: step.effects.includes('begin_session') }).toEqual({ state, event, begins })
    }
  })

  it('sends a join only after the store was prepared on this connection', () => {
    for (const { state, event, step } of cells) {
      const sends = state === 'preparing' && event === 'prepared'
      expect({ state, event, sends: step.effects.includes('send_join') }).toEqual({ state, event, sends })
      if (step.effects.includes('prepare')) expect(step.to).toBe('preparing')
    }
  })

  it('cancels the pause on every way out of retrying but its end', () => {
    for (const event of EVENTS) {
      const step = CONNECTION_TABLE.retrying[event]
      const cancels = step.to !== 'retrying' && event !== 'retry_due'
      expect({ event, cancels: step.effects.includes('cancel_pause') }).toEqual({ event, cancels })
    }
  })

  it('never wants a connection in a state without one', () => {
    for (const { state, step } of cells) {
      const without = ['offline', 'refused', 'closed']
      if (without.includes(step.to) && !without.includes(state)) expect(step.effects).toContain('disconnect')
      if (without.includes(state) && !without.includes(step.to)) expect(step.effects).toEqual(['connect'])
    }
  })

  it('comes back from "do not come back" only when the application asks', () => {
    for (const event of EVENTS) {
      const expected = event === 'go_online' ? 'connecting' : event === 'go_offline' ? 'offline' : event === 'close' ? 'closed' : 'refused'
      expect(CONNECTION_TABLE.refused[event].to).toBe(expected)
    }
  })

  it('pauses longer with every failure, up to a bound, and any time up to it', () => {
    expect([1, 2, 3, 4, 5, 6, 9999].map((failures) => pauseAfter(failures, 1))).toEqual([500, 1000, 2000, 4000, 5000, 5000, 5000])
    expect([pauseAfter(1, 0), pauseAfter(1, 0.3), pauseAfter(99, 0.5)]).toEqual([0, 150, 2500])
  })

  it('brings a thousand clients whose node died back spread over half a second, not at once', () => {
    const pauses = Array.from({ length: 1000 }, () => pauseAfter(1, platformTimers.chance()))
    const perTenth = [0, 1, 2, 3, 4].map((tenth) => pauses.filter((ms) => Math.floor(ms / 100) === tenth).length)
    expect(perTenth.reduce((sum, count) => sum + count)).toBe(1000)
    // 200 each are expected; a fixed pause would have them all in one
    expect(Math.max(...perTenth)).toBeLessThan(300)
    expect(Math.min(...perTenth)).toBeGreaterThan(100)
  })
})
