// What the IBM Equal Access checker says of a page, and where the keyboard leads on it.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const CHECKER = readFileSync(createRequire(import.meta.url).resolve('accessibility-checker-engine/ace.js'), 'utf8')
const MAX_STOPS = 300

/**
 * What fails WCAG 2.2 A and AA or the checker's recommendations, a line each. What it wants a person to look at is left
 * out: where the focus is seen `tabThrough` finds out, and the rest are questions such as whether a colour says something.
 */
export async function violations(page) {
  await page.evaluate(CHECKER)
  return page.evaluate(async () => {
    const { results } = await new ace.Checker().check(document, ['WCAG_2_2', 'IBM_Accessibility'])
    if (results.length === 0) throw new Error('the checker looked at nothing')
    const failed = results.filter(({ value: [, verdict] }) => verdict === 'FAIL')
    return failed.map(({ ruleId, path, message }) => `${ruleId}: ${path.dom}: ${message}`)
  })
}

/**
 * Presses Tab until the page is left. Gives what had the focus, in order; throws where the focus cannot be seen, and
 * where Tab does not get on.
 */
export async function tabThrough(page) {
  const stops = []
  await page.evaluate(() => {
    document.activeElement?.blur()
    window.tabStops = new Set()
  })
  for (let at = 0; at < MAX_STOPS; at += 1) {
    await page.keyboard.press('Tab')
    const stop = await page.evaluate(() => {
      const element = document.activeElement
      if (element === null || element === document.body || window.tabStops.has(element)) return null
      window.tabStops.add(element)
      // a field that lies invisibly over its words is outlined around both
      const shown = [element, element.parentElement].find((one) => getComputedStyle(one).outlineStyle !== 'none')
      const box = element.getBoundingClientRect()
      const inSight = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth
      const name = element.dataset.testid ?? element.ariaLabel ?? element.textContent.trim()
      const pane = element.closest('[data-testid="pane"]')?.dataset.person
      return { name: pane ? `${pane} ${name}` : name, isMarked: shown !== undefined, inSight }
    })
    if (stop === null) return stops
    if (!stop.isMarked) throw new Error(`the focus cannot be seen on ${stop.name}`)
    if (!stop.inSight) throw new Error(`what has the focus is out of sight: ${stop.name}`)
    stops.push(stop.name)
  }
  throw new Error(`Tab does not leave the page: ${stops.slice(-5).join(', ')}`)
}
