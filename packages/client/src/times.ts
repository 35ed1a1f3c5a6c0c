/** Dates and timestamps as text: what PostgreSQL prints (ISO, UTC) and what applications write (`toISOString`). */
import { compareTexts } from './values'

const TIME = /^([+-]?\d{1,6})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?\s*(?:(Z)|([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?)?)?( BC)?$/

/** Days since 1970-01-01 in the Gregorian calendar, for any year. */
function daysOf(year: number, month: number, day: number): number {
  const [y, m] = month <= 2 ? [year - 1, month + 9] : [year, month - 3]
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + Math.floor((153 * m + 2) / 5) + day - 1
  return era * 146_097 + dayOfEra - 719_468
}

/** Microseconds since 1970, or null for what is no time. */
export function instantOf(text: string): bigint | null {
  const match = TIME.exec(text)
  if (match === null) return null
  const [, years, month, day, hours = 0, minutes = 0, seconds = 0, part = '', , sign, h = 0, m = 0, s = 0, bc] = match
  const year = bc === undefined ? Number(years) : 1 - Number(years)
  const offset = (Number(h) * 3600 + Number(m) * 60 + Number(s)) * (sign === '-' ? -1 : 1)
  const whole = daysOf(year, Number(month), Number(day)) * 86_400 + Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds) - offset
  return BigInt(whole) * 1_000_000n + BigInt(part.slice(1, 7).padEnd(6, '0'))
}

/** Printed by a server of our sessions' settings: four digits of a year, UTC or no zone; such texts sort as they are. */
function isPlain(text: string): boolean {
  if (text.charCodeAt(4) !== 45 || text.charCodeAt(0) === 43 || text.charCodeAt(0) === 45) return false
  if (text.length === 10) return true
  return text.charCodeAt(10) === 32 && text.charCodeAt(text.length - 1) !== 67
}

/** What of a plain text follows its fraction. */
function zone(text: string): string {
  return text.endsWith('+00') ? '+00' : /[+-]\d\d(:?\d\d)*$/.test(text.slice(10)) ? 'other' : ''
}

const INFINITE: Record<string, number> = { '-infinity': -1, infinity: 1 }

/** Compares two dates or timestamps by the instant they mean; one without a zone is taken as UTC. */
export function compareTimes(a: string, b: string): number {
  if (a === b) return 0
  const [endA, endB] = [INFINITE[a] ?? 0, INFINITE[b] ?? 0]
  if (endA !== 0 || endB !== 0) return endA - endB
  if (isPlain(a) && isPlain(b)) {
    const ending = zone(a)
    if (ending !== 'other' && ending === zone(b)) return compareTexts(a, b)
  }
  const [x, y] = [instantOf(a), instantOf(b)]
  if (x === null || y === null) return compareTexts(a, b)
  return x < y ? -1 : x > y ? 1 : 0
}
