// Writes down what a page showed after each change of its document, to find states that were on the
// screen for an instant only. A MutationObserver runs before the next frame is painted, so nothing
// that a person could have seen escapes it.

/** Watches one to-do and the people whose name begins with `prefix`: shown people = its assignee, always. */
export function recordPairs(page, todo, prefix) {
  return page.evaluate(
    ([todo, prefix]) => {
      const states = []
      const look = () => {
        const row = document.querySelector(`[data-testid="todo"][data-id="${todo}"]`)
        const people = [...document.querySelectorAll('[data-testid="member"]')]
        const shown = people.filter((person) => person.textContent.includes(prefix)).map((person) => person.dataset.id)
        const assignee = row?.dataset.assignee ?? ''
        const name = row?.querySelector('[data-testid="assignee-name"]')?.textContent ?? ''
        const whole = shown.join() === assignee && (assignee === '' || name.includes(prefix))
        const state = JSON.stringify({ assignee, shown, whole })
        if (states.at(-1) !== state) states.push(state)
      }
      window.pairStates = states
      window.pairObserver = new MutationObserver(look)
      window.pairObserver.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true })
      look()
    },
    [todo, prefix],
  )
}

export function recordedPairs(page) {
  return page.evaluate(() => {
    window.pairObserver.disconnect()
    return window.pairStates.map((state) => JSON.parse(state))
  })
}
