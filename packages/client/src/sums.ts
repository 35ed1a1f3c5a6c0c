/** Exact sums: values come and go in any order, and the sum is that of the values that are there. */

/** `0.1` as integer 1 with one digit after the point. */
const DECIMAL = /^([+-]?)(\d*)\.?(\d*)$/

/** Binary places after the point of the smallest number a double can hold, and half of them, which a double can be multiplied by. */
const FINEST = 1074
const HALF = FINEST / 2

/** A finite double in units of the smallest one. Each step leaves whole digits and takes the rest along, which is exact. */
function unitsOf(value: number): bigint {
  const whole = Math.trunc(value)
  const rest = (value - whole) * 2 ** HALF
  const high = Math.trunc(rest)
  return (BigInt(whole) << BigInt(FINEST)) + (BigInt(high) << BigInt(HALF)) + BigInt((rest - high) * 2 ** HALF)
}

/** The double nearest to so many units; a remainder that is cut off leaves a sticky bit, so rounding is done once. */
function nearest(units: bigint): number {
  const size = units < 0n ? -units : units
  const shift = Math.max(0, size.toString(2).length - 64)
  let head = size >> BigInt(shift)
  if (head << BigInt(shift) !== size) head |= 1n
  const value = Number(head) * 2 ** (shift - FINEST)
  return units < 0n ? -value : value
}

/** Counts one more or less of something; what is not there any more is forgotten. */
function count(counts: Map<number, number>, of: number, by: 1 | -1): void {
  const now = (counts.get(of) ?? 0) + by
  if (now === 0) counts.delete(of)
  else counts.set(of, now)
}

/** A running sum of a column: null without values, as SQL has it. */
export class Sum {
  private count = 0
  private total = 0n
  /** NaN and the infinities: how many of each */
  private readonly special = new Map<number, number>()
  /** digits after the point: how many values have so many */
  private readonly scales = new Map<number, number>()
  /** digits after the point that `total` has room for */
  private scale = 0

  /** `isDecimal`: the values are decimal texts and so is the sum; otherwise both are numbers. */
  constructor(private readonly isDecimal: boolean) {}

  /** Takes a value in (`by` 1) or out (-1). NULLs do not count. */
  add(value: unknown, by: 1 | -1): void {
    if (value === null || value === undefined) return
    this.count += by
    const finite = this.isDecimal ? DECIMAL.exec(String(value)) : null
    if (finite !== null) return this.addDecimal(finite, by)
    const number = Number(value)
    if (Number.isFinite(number)) this.total += unitsOf(number) * BigInt(by)
    else count(this.special, number, by)
  }

  private addDecimal([, sign, whole, part = '']: RegExpExecArray, by: 1 | -1): void {
    const scale = part.length
    count(this.scales, scale, by)
    if (scale > this.scale) {
      this.total *= 10n ** BigInt(scale - this.scale)
      this.scale = scale
    }
    const digits = BigInt(`${whole}${part}`) * 10n ** BigInt(this.scale - scale)
    this.total += (sign === '-' ? -digits : digits) * BigInt(by)
  }

  /** The sum; a decimal has as many digits after the point as PostgreSQL gives it. */
  get value(): number | string | null {
    if (this.count === 0) return null
    if (this.special.size > 0) {
      const sum = [...this.special.keys()].reduce((one, other) => one + other)
      return this.isDecimal ? String(sum) : sum
    }
    if (!this.isDecimal) return nearest(this.total)
    const scale = Math.max(0, ...this.scales.keys())
    const total = this.total / 10n ** BigInt(this.scale - scale)
    const digits = (total < 0n ? -total : total).toString().padStart(scale + 1, '0')
    const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
    return total < 0n ? `-${text}` : text
  }
}
