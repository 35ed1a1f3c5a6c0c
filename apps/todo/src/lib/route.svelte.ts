// Which list each pane shows lives in the address (#/<list>, or #/<list>/<list>), so a reload or a shared link shows the same.
const read = () => location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent)

class Route {
  #lists = $state.raw(read())

  constructor() {
    addEventListener('hashchange', () => (this.#lists = read()))
  }

  /** The list of the pane with this number; the first one's where it has none of its own. */
  list(pane: number): string | null {
    return this.#lists[pane] || this.#lists[0] || null
  }

  /** The address that shows this list in this pane. */
  href(pane: number, list: string): string {
    const lists = Array.from({ length: panes }, (_, at) => this.list(at) ?? '')
    lists[pane] = list
    return `#/${lists.join('/')}`
  }

  go(pane: number, list: string): void {
    location.hash = this.href(pane, list)
  }

  /** For the choice nobody made: the first list takes no step in the history. */
  fallBack(list: string): void {
    history.replaceState(null, '', `#/${list}`)
    this.#lists = [list]
  }
}

let panes = 1
export function setPanes(count: number): void {
  panes = count
}

export const route = new Route()
