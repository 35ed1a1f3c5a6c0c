// What the React hooks are tested with: StrictMode, a parameter, a part that comes and goes.
import { memo, StrictMode, useMemo, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { useLive, useMutation, useQuery, useShape, useStatus } from '../../packages/client/src/react'
import { start } from './node'

const { client, test } = start()

interface Todo {
  id: string
  title: string
  list: { name: string } | null
}

const Todos = memo(({ list }: { list: string }) => {
  const { state } = useShape(client, { table: 'todos' })
  const todos = useQuery<Todo>(client, { table: 'todos', where: ['list_id', '=', list], orderBy: [['id', 'desc']], limit: 3, include: { list: true } })
  const long = useQuery<Todo>(client, { table: 'todos', where: (todo: any) => todo.list_id === list && todo.title.length > 3 }, [list])
  test.drawn += 1
  return (
    <>
      <p id="state">{state}</p>
      <ol>{todos.map(({ id, title, list }) => <li key={id}>{`${id} ${title} ${list?.name}`}</li>)}</ol>
      <p id="long">{long.length}</p>
    </>
  )
})

function App() {
  const [list, setList] = useState('1')
  const [isShown, setShown] = useState(true)
  useShape(client, { table: 'lists' })
  const status = useStatus(client)
  const count = useLive(useMemo(() => client.count({ table: 'todos' }), []))
  const [mutate, { state, code }] = useMutation(client)
  const add = (title: string) => mutate([{ op: 'insert', table: 'todos', values: { id: '11', list_id: '1', title, done: false } }])
  return (
    <>
      <p id="status">{`${status.connection} ${status.refused.length}`}</p>
      <p id="count">{count}</p>
      <p id="mutation">{`${state} ${code ?? ''}`}</p>
      <button id="other" onClick={() => setList(list === '1' ? '2' : '1')}>other list</button>
      <button id="toggle" onClick={() => setShown(!isShown)}>show or hide</button>
      <button id="add" onClick={() => add('Jam')}>add</button>
      <button id="refused" onClick={() => add('forbidden')}>add what is refused</button>
      {isShown && <Todos list={list} />}
    </>
  )
}

createRoot(document.querySelector('#app') as HTMLElement).render(<StrictMode><App /></StrictMode>)
