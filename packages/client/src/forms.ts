/** Values in the form that an application chose with `lockstep types`; everything below live queries keeps them as they came. */
import { instantOf } from './times'
import { isNull, own, type Row } from './values'

/** What a value is shown as that came as text. */
export type Form = 'bigint' | 'number' | 'Date'

/** Milliseconds since 1970; NaN for what no Date holds, such as infinity. */
function millisecondsOf(text: string): number {
  const instant = instantOf(text)
  return instant === null ? Number.NaN : Number(instant / 1000n)
}

/** One value. What is no such text, as it can only be in an edit that the database will refuse, stays what it is. */
export function inForm(form: Form | undefined, value: unknown): unknown {
  if (form === undefined || isNull(value)) return value
  const text = String(value)
  if (form === 'bigint') return /^[+-]?\d+$/.test(text) ? BigInt(text) : value
  return form === 'number' ? Number(text) : new Date(millisecondsOf(text))
}

/** Shows rows; the same row is the same object. */
export function presenter(forms?: Readonly<Record<string, Form>>): (row: Row) => Row {
  if (forms === undefined) return (row) => row
  const shown = new WeakMap<Row, Row>()
  return (row) => {
    const made = shown.get(row) ?? Object.fromEntries(Object.entries(row).map(([name, value]) => [name, inForm(own(forms, name), value)]))
    shown.set(row, made)
    return made
  }
}
