// Pictures of the running demo, wide and narrow, light and dark.
//
//   node screenshots.mjs --app http://127.0.0.1:4000/ --out DIR
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { launchBrowser } from './browser.mjs'

const SIZES = [{ width: 1280, height: 800 }, { width: 390, height: 844 }]
const SCHEMES = ['light', 'dark']

const { values } = parseArgs({ options: { app: { type: 'string' }, out: { type: 'string', default: '.' } } })
if (!values.app) throw new Error('say --app URL')
mkdirSync(values.out, { recursive: true })

const byId = (id) => `[data-testid="${id}"]`

async function shoot(page, name) {
  const path = join(values.out, `${name}.png`)
  await page.screenshot({ path })
  console.log(path)
}

/** The page at rest, and the page offline with an unsent edit and an edit that will be refused. */
async function picture(browser, viewport, colorScheme) {
  const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: 2 })
  const page = await context.newPage()
  await page.goto(values.app)
  await page.locator(`${byId('status')}[data-connection="live"]`).waitFor()
  await page.locator(byId('todo')).first().waitFor()
  const name = `${viewport.width}-${colorScheme}`
  await shoot(page, name)

  await page.locator(byId('new-todo')).fill('A forbidden thing')
  await page.locator(byId('add-todo')).click()
  await page.locator(byId('refused')).waitFor()
  await page.locator(byId('offline-switch')).click()
  const todo = page.locator(byId('todo')).first()
  await todo.locator(byId('toggle')).click()
  await page.locator(`${byId('status')}[data-unsent="1"]`).waitFor()
  await todo.locator(byId('title')).dblclick()
  await todo.locator(byId('edit-title')).waitFor()
  await shoot(page, `${name}-offline`)
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
