// The demo as a person uses it: one browser context with one page, driven through what is on the screen.
const byId = (id) => `[data-testid="${id}"]`

/** How long a condition may take before the step counts as failed; nothing waits this long when all is well. */
export const PATIENCE_MS = 15_000

// Chromium itself reports a socket or request that failed; while the network is cut that is expected.
const NETWORK_COMPLAINT = /WebSocket connection to|net::ERR_|Failed to load resource/

export class DemoPage {
  static async open(browser, name, url) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } })
    context.setDefaultTimeout(PATIENCE_MS)
    // A page handed out by cutNetwork counts as one from nowhere, which may not reach this machine.
    await context.grantPermissions(['local-network-access'])
    return DemoPage.openIn(context, name, url)
  }

  /** One more tab of a browser. `prepare` gets the page before anything is loaded. */
  static async openIn(context, name, url, prepare = async () => {}) {
    const demo = await DemoPage.load(context, name, url, prepare)
    await demo.live()
    return demo
  }

  /** The page with two people, and each one's pane. */
  static async openPair(browser, url, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
    context.setDefaultTimeout(PATIENCE_MS)
    const whole = await DemoPage.load(context, 'the pair', url)
    const pair = { whole, page: whole.page, ada: whole.pane('ada'), linus: whole.pane('linus') }
    await Promise.all([pair.ada.live(), pair.linus.live()])
    return pair
  }

  static async load(context, name, url, prepare = async () => {}) {
    const demo = new DemoPage()
    Object.assign(demo, { name, context, errors: [], served: new Map(), page: await context.newPage() })
    demo.root = demo.page
    demo.page.on('pageerror', (error) => demo.errors.push(`${name}: ${error.message}`))
    demo.page.on('console', (message) => {
      const text = message.text()
      if (message.type() === 'error' && !NETWORK_COMPLAINT.test(text)) demo.errors.push(`${name}: ${text}`)
    })
    await prepare(demo.page)
    await demo.page.goto(url)
    return demo
  }

  /** One person's pane of a page that shows two. */
  pane(person) {
    return Object.assign(new DemoPage(), this, { name: person, root: this.page.locator(`${byId('pane')}[data-person="${person}"]`) })
  }

  todo(id) {
    return this.root.locator(`${byId('todo')}[data-id="${id}"]`)
  }

  titled(title) {
    const exact = this.page.locator(byId('title')).getByText(title, { exact: true })
    return this.root.locator(byId('todo')).filter({ has: exact })
  }

  /** Waits until the row of this id is shown with these data attributes and, if given, this title. */
  async shows(id, { title, ...attributes }) {
    const selector = Object.entries(attributes).map(([name, value]) => `[data-${name}="${value}"]`).join('')
    const row = this.root.locator(`${byId('todo')}[data-id="${id}"]${selector}`)
    if (title === undefined) return row.waitFor()
    const exact = this.page.locator(byId('title')).getByText(title, { exact: true })
    return row.filter({ has: exact }).waitFor()
  }

  /** Adds one that may be refused before it is seen. */
  async write(title) {
    await this.root.locator(byId('new-todo')).fill(title)
    await this.root.locator(byId('new-todo')).press('Enter')
  }

  async add(title) {
    await this.write(title)
    await this.titled(title).waitFor()
    return this.titled(title).getAttribute('data-id')
  }

  async toggle(id) {
    await this.todo(id).locator(byId('toggle')).click()
  }

  async rename(id, title) {
    await this.todo(id).locator(byId('title')).dblclick()
    await this.todo(id).locator(byId('edit-title')).fill(title)
    await this.todo(id).locator(byId('edit-title')).press('Enter')
    await this.shows(id, { title })
  }

  async assign(id, member) {
    await this.todo(id).locator(byId('assignee')).selectOption(member)
  }

  async remove(id) {
    await this.todo(id).locator(byId('delete')).click()
  }

  async flipOfflineSwitch() {
    await this.root.locator(byId('offline-switch')).click()
  }

  /** Looks at another list and comes back the way a browser does. */
  async visitAnotherList() {
    const name = await this.root.locator(byId('list-name')).innerText()
    const head = this.root.locator(byId('list-name'))
    await this.root.locator(`${byId('list')}:not([aria-current])`).first().click()
    await head.and(this.page.getByText(name, { exact: true })).waitFor({ state: 'detached' })
    await this.page.goBack()
    await head.and(this.page.getByText(name, { exact: true })).waitFor()
  }

  /** All is sent and the node answers. */
  live() {
    return this.root.locator(`${byId('status')}[data-connection="live"][data-unsent="0"]`).waitFor({ state: 'attached' })
  }

  offline(unsent) {
    return this.root.locator(`${byId('status')}[data-connection="offline"][data-unsent="${unsent}"]`).waitFor()
  }

  /** Anything but live: a cut network is first noticed, then given up on. */
  notLive(unsent) {
    const count = unsent === undefined ? '' : `[data-unsent="${unsent}"]`
    return this.root.locator(`${byId('status')}:not([data-connection="live"])${count}`).waitFor()
  }

  async status() {
    return (await this.root.locator(byId('status')).innerText()).replace(/\s+/g, ' ')
  }

  refusals() {
    return this.root.locator(byId('refused'))
  }

  /** Sends the first refused edit again in other words. */
  async resend(words) {
    const first = this.refusals().first()
    await first.locator(byId('refused-words')).fill(words)
    await first.locator(byId('resend')).click()
  }

  conflicts() {
    return this.root.locator(byId('conflict'))
  }

  /** Waits until a conflict is shown with this base, mine and theirs (null: gone). */
  async conflict(base, mine, theirs) {
    const side = (name) => this.conflicts().locator(byId(`conflict-${name}`))
    for (const [name, text] of Object.entries({ base, mine, theirs })) {
      if (text === null) await side(name).waitFor({ state: 'detached' })
      else await side(name).getByText(text, { exact: true }).waitFor()
    }
  }

  async keepMine() {
    await this.conflicts().locator(byId('keep-mine')).click()
  }

  async keepTheirs() {
    await this.conflicts().locator(byId('keep-theirs')).click()
  }

  async dismiss() {
    await this.refusals().first().locator(byId('dismiss')).click()
  }

  /**
   * Cuts the network of this context. The page's own files are handed out from memory then, as a
   * browser's cache or a service worker would, so that the page can be loaded again.
   */
  async cutNetwork() {
    const files = await this.page.evaluate(() => performance.getEntriesByType('resource').map((entry) => entry.name))
    for (const url of [this.page.url().replace(/#.*/, ''), ...files]) {
      const response = await this.context.request.get(url)
      this.served.set(url, { body: await response.body(), headers: response.headers(), status: response.status() })
    }
    await this.context.route('**/*', (route) => {
      const kept = this.served.get(route.request().url().replace(/#.*/, ''))
      return kept ? route.fulfill(kept) : route.abort('internetdisconnected')
    })
    await this.context.setOffline(true)
  }

  async restoreNetwork() {
    await this.context.unroute('**/*')
    await this.context.setOffline(false)
  }

  /** After a step that failed half-way: the next one begins online. */
  async recover() {
    await this.restoreNetwork()
    const off = this.root.locator(`${byId('offline-switch')}[aria-checked="true"]`)
    if (await off.count()) await off.click()
  }
}
