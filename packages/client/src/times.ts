/** Dates and timestamps as text: what PostgreSQL prints (ISO, UTC) and what applications write (`toISOString`). */
import { compareTexts, own } from './values'

const TIME = /^([+-]?\d{1,6})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?\s*(?:(Z)|([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?)?)?( BC)?$/

/** Days of 400 years, after which the calendar repeats. */
const ERA_DAYS = 146_097

/** Microseconds since 1970, or null for what is no time. */
export function instantOf(text: string): bigint | null {
  const match = TIME.exec(text)
  if (match === null) return null
  const [, years, month, day, hours = 0, minutes = 0, seconds = 0, part = '', , sign, h = 0, m = 0, s = 0, bc] = match
  const year = bc === undefined ? Number(years) : 1 - Number(years)
  const offset = (Number(h) * 3600 + Number(m) * 60 + Number(s)) * (sign === '-' ? -1 : 1)
  // PostgreSQL knows years that no Date holds: of one that it holds, with the same calendar
  const era = Math.floor(year / 400) - 5
  const moment = Date.UTC(year - era * 400, Number(month) - 1, Number(day), Number(hours), Number(minutes), Number(seconds)) / 1000
  return BigInt(moment + era * ERA_DAYS * 86_400 - offset) * 1_000_000n + BigInt(part.slice(1, 7).padEnd(6, '0'))
}

/** How a text ends that a server printed in our sessions' settings, with a year of four digits; null for another one. */
function plainEnd(text: string): string | null {
  if (text < '0' || text[4] !== '-') return null
  if (text.length === 10) return 'date'
  if (text[10] !== ' ') return null
  return text.endsWith('+00') ? '+00' : /^[\d:.]*$/.test(text.slice(11)) ? '' : null
}

const INFINITE: Record<string, number> = { '-infinity': -1, infinity: 1 }

/** Compares two dates or timestamps by the instant they mean; one without a zone is taken as UTC. */
export function compareTimes(a: string, b: string): number {
  const end = plainEnd(a)
  // such texts sort as they are
  if (a === b || (end !== null && end === plainEnd(b))) return compareTexts(a, b)
  const [endA, endB] = [own(INFINITE, a) ?? 0, own(INFINITE, b) ?? 0]
  if (endA !== 0 || endB !== 0) return endA - endB
  const [x, y] = [instantOf(a), instantOf(b)]
  if (x === null || y === null) return compareTexts(a, b)
  return x < y ? -1 : x > y ? 1 : 0
}
