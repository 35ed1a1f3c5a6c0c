/** Exact sums: values come and go in any order, and the sum is that of the values that are there. */

/** `0.1` as integer 1 with one digit after the point. */
const DECIMAL = /^([+-]?)(\d*)\.?(\d*)$/

/** Units of the smallest number a double can hold. */
const FINEST = 1074

function unitsOf(value: number): bigint {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  const bits = view.getBigUint64(0)
  const exponent = Number((bits >> 52n) & 0x7ffn)
  const fraction = bits & 0xfffffffffffffn
  // subnormal numbers have the exponent of the smallest normal one and no leading bit
  const units = exponent === 0 ? fraction : (fraction | (1n << 52n)) << BigInt(exponent - 1)
  return bits >> 63n === 1n ? -units : units
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

/** A running sum of a column: null without values, as SQL has it. */
export class Sum {
  private count = 0
  private total = 0n
  /** values that are no numbers: how many of each */
  private readonly special = { nan: 0, up: 0, down: 0 }
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
    if (Number.isNaN(number)) this.special.nan += by
    else if (number === Infinity) this.special.up += by
    else if (number === -Infinity) this.special.down += by
    else this.total += unitsOf(number) * BigInt(by)
  }

  private addDecimal([, sign, whole, part = '']: RegExpExecArray, by: 1 | -1): void {
    const scale = part.length
    const uses = (this.scales.get(scale) ?? 0) + by
    if (uses === 0) this.scales.delete(scale)
    else this.scales.set(scale, uses)
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
    const { nan, up, down } = this.special
    if (nan > 0 || (up > 0 && down > 0)) return this.isDecimal ? 'NaN' : NaN
    if (up > 0 || down > 0) return this.isDecimal ? (up > 0 ? 'Infinity' : '-Infinity') : up > 0 ? Infinity : -Infinity
    if (!this.isDecimal) return nearest(this.total)
    const scale = Math.max(0, ...this.scales.keys())
    const total = this.total / 10n ** BigInt(this.scale - scale)
    const digits = (total < 0n ? -total : total).toString().padStart(scale + 1, '0')
    const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
    return total < 0n ? `-${text}` : text
  }
}
