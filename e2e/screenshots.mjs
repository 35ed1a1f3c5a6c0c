// Pictures of the running demo, wide and narrow, light and dark, in several states.
//
//   node screenshots.mjs --app http://127.0.0.1:4000/ --out DIR [--only 1280-light]
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { launchBrowser } from './browser.mjs'

const SIZES = [{ width: 1280, height: 800 }, { width: 390, height: 844 }]
const SCHEMES = ['light', 'dark']

const { values } = parseArgs({ options: { app: { type: 'string' }, out: { type: 'string', default: '.' }, only: { type: 'string', default: '' } } })
if (!values.app) throw new Error('say --app URL')
mkdirSync(values.out, { recursive: true })

const byId = (id) => `[data-testid="${id}"]`

/** The page at rest, then after each thing to try. */
async function picture(browser, viewport, colorScheme) {
  const name = `${viewport.width}-${colorScheme}`
  if (!name.includes(values.only)) return
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: 1.5 })
  const page = await context.newPage()
  let number = 0
  const shoot = async (what, fullPage = false) => {
    const path = join(values.out, `${name}-${(number += 1)}-${what}.png`)
    await page.screenshot({ path, fullPage })
    console.log(path)
  }
  const pane = (person) => page.locator(`${byId('pane')}[data-person="${person}"]`)
  const attempt = (step) => page.locator(`${byId('try')}[data-name="${step}"]`).click()
  await page.goto(values.app)
  for (const person of ['ada', 'linus']) await pane(person).locator(`${byId('status')}[data-connection="live"]`).waitFor({ state: 'attached' })
  await pane('ada').locator(byId('todo')).first().waitFor()
  await shoot('rest', true)
  await attempt('A refused edit')
  await pane('ada').locator(byId('refused')).waitFor()
  await attempt('In a tunnel')
  await pane('ada').locator(`${byId('status')}[data-connection="offline"]`).waitFor()
  await pane('ada').locator(byId('todo')).nth(1).locator(byId('title')).dblclick()
  await shoot('refused')
  await page.keyboard.press('Escape')
  await pane('ada').locator(byId('dismiss')).first().click()
  await pane('ada').locator(byId('offline-switch')).click()
  await attempt('A first load')
  await pane('linus').locator(`${byId('loading')},${byId('search')}`).first().waitFor()
  await shoot('loading')
  await pane('linus').locator(byId('search')).waitFor()
  await attempt('Plain SQL')
  await page.locator(byId('run-sql')).click()
  await page.locator(byId('sql-done')).waitFor()
  await shoot('archive', true)
  await page.locator(byId('sql')).fill('select nothing from nowhere')
  await page.locator(byId('sql')).press('Control+Enter')
  await page.locator(byId('sql-error')).waitFor()
  await shoot('error')
  await context.close()
}

const browser = await launchBrowser()
try {
  for (const viewport of SIZES) {
    for (const scheme of SCHEMES) await picture(browser, viewport, scheme)
  }
} finally {
  await browser.close()
}
