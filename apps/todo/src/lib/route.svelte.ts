// Which list is shown lives in the address (#<list id>), so a reload or a shared link shows the same.
const read = () => decodeURIComponent(location.hash.slice(1)) || null

class Route {
  list = $state<string | null>(read())

  constructor() {
    addEventListener('hashchange', () => (this.list = read()))
  }

  /** For the choice nobody made: the first list takes no step in the history. */
  fallBack(list: string): void {
    history.replaceState(null, '', `#${list}`)
    this.list = list
  }

  go(list: string): void {
    location.hash = list
  }
}

export const route = new Route()
