/** One browser profile whose pages show to-dos, with the steps that scenarios of several pages share. */
import { FakeServer } from './fake_server'
import { type FakePage, Profile } from './profile'
import { joined, type Todo, todosShape, turn } from './world'

/** A page with a list of to-dos in it; `seen`: what was shown at each notification. */
export interface Open {
  page: FakePage
  server: FakeServer
  titles: () => string[]
  seen: string[][]
}

/** A profile whose pages show to-dos. */
export class Browser {
  readonly profile = new Profile()

  /** Opens a page; it subscribes at once. */
  open(keep: 'sync' | 'live' = 'sync'): Open {
    const page = this.profile.newPage()
    const server = new FakeServer()
    const client = page.open(server.transport)
    client.subscribe({ table: 'todos', keep })
    const query = client.query<Todo>({ table: 'todos', orderBy: 'id' })
    const titles = () => query.getSnapshot().map(({ title }) => title)
    const seen: string[][] = []
    query.subscribe(() => seen.push(titles()))
    return { page, server, titles, seen }
  }

  /** Until nothing is under way between pages, nor in one of them. */
  async calm(): Promise<void> {
    for (let quiet = 0; quiet < 12; ) {
      const waiting = this.profile.waiting()
      for (const line of waiting) this.profile.deliver(line)
      for (const page of this.profile.pages) page.pass(50)
      await turn()
      quiet = waiting.length > 0 ? 0 : quiet + 1
    }
  }

  /** Answers the join of the page that leads, with rows when it has none. */
  async join({ server }: Open, cursor: string, ...rows: unknown[]): Promise<any> {
    await this.calm()
    server.open()
    await this.calm()
    const request = await server.next('phx_join')
    server.reply(request, joined(request))
    const [shape] = request.payload.shapes
    server.send('shape', todosShape(shape.ref))
    if (rows.length > 0) server.send('rows', { shape: 'S', ...(shape.have ? {} : { reset: 'first' }), put: rows })
    server.send('commit', { lsn: '0/1', xid: null, cursor })
    await this.calm()
    return request.payload
  }

  /** The first visit: the place moves to the database's, and whoever leads joins again there. */
  async firstVisit(open: Open, ...rows: unknown[]): Promise<void> {
    await this.calm()
    open.server.open()
    const request = await open.server.next('phx_join')
    open.server.reply(request, joined(request))
    await this.calm()
    await this.join(open, 'k1', ...rows)
  }
}
