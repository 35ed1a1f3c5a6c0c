/** The table is total, and its cells keep what the rest relies on. */
import { describe, expect, it } from 'vitest'
import { type ConnectionEvent, type ConnectionState, connectionStep, pauseAfter } from '../src/connection'
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
/** Every cell in which something happens: event, state afterwards, effects. */
const SPELLED: Record<ConnectionState, readonly string[]> = {
  offline: [
    'go_online -> connecting connect',
    'close -> closed',
    'opened -> offline disconnect',
  ],
  connecting: [
    'network_changed -> connecting disconnect connect',
    'go_offline -> offline disconnect',
    'close -> closed disconnect',
    'opened -> preparing prepare',
    'sent_away -> refused disconnect',
  ],
  preparing: [
    'network_changed -> connecting disconnect connect',
    'go_offline -> offline disconnect',
    'close -> closed disconnect',
    'opened -> preparing prepare',
    'lost -> connecting',
    'sent_away -> refused disconnect',
    'prepared -> joining send_join',
    'restart -> preparing prepare',
  ],
  joining: [
    'network_changed -> connecting end_session disconnect connect',
    'go_offline -> offline end_session disconnect',
    'close -> closed end_session disconnect',
    'opened -> preparing end_session prepare',
    'lost -> connecting end_session',
    'sent_away -> refused end_session disconnect',
    'join_ok -> joined begin_session',
    'join_failed -> retrying end_session start_pause',
    'join_refused -> refused end_session disconnect',
    'session_ended -> retrying end_session start_pause',
    'restart -> preparing end_session prepare',
  ],
  joined: [
    'network_changed -> connecting end_session disconnect connect',
    'go_offline -> offline end_session disconnect',
    'close -> closed end_session disconnect',
    'opened -> preparing end_session prepare',
    'lost -> connecting end_session',
    'sent_away -> refused end_session disconnect',
    'session_ended -> retrying end_session start_pause',
    'restart -> preparing end_session prepare',
  ],
  retrying: [
    'network_changed -> connecting cancel_pause disconnect connect',
    'go_offline -> offline cancel_pause disconnect',
    'close -> closed cancel_pause disconnect',
    'opened -> preparing cancel_pause prepare',
    'lost -> connecting cancel_pause',
    'sent_away -> refused cancel_pause disconnect',
    'retry_due -> preparing prepare',
    'restart -> preparing cancel_pause prepare',
  ],
  refused: [
    'go_online -> connecting connect',
    'go_offline -> offline',
    'close -> closed',
    'opened -> refused disconnect',
  ],
  closed: [
    'opened -> closed disconnect',
  ],
}

const cells = STATES.flatMap((state) => EVENTS.map((event) => ({ state, event, step: connectionStep(state, event) })))

describe('the connection table', () => {
  it('does in every state and for every event what is spelled out here, and nothing else', () => {
    for (const state of STATES) {
      const happens = cells.filter((cell) => cell.state === state && (cell.step.to !== state || cell.step.effects.length > 0))
      const spelled = happens.map(({ event, step }) => [event, '->', step.to, ...step.effects].join(' '))
      expect(spelled.sort()).toEqual([...SPELLED[state]].sort())
    }
  })

  it('is left for good by close, from everywhere', () => {
    for (const state of STATES) expect(connectionStep(state, 'close').to).toBe('closed')
    for (const event of EVENTS) expect(connectionStep('closed', event).to).toBe('closed')
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
      const step = connectionStep('retrying', event)
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
      expect(connectionStep('refused', event).to).toBe(expected)
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
