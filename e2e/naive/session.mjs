// One connection of the naive node: what it has been shown, and the difference to what there is now.
import { createHash, randomUUID } from 'node:crypto'

const digest = (value) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16)

export class Session {
  constructor(socket, node) {
    this.socket = socket
    this.node = node
    this.client = null
    this.shapes = new Map() // shape id → {refs, table, keep, shown}
    this.cursor = null
    socket.on('message', (text) => node.inTurn(() => this.receive(JSON.parse(text))))
    socket.on('close', () => node.sessions.delete(this))
  }

  send(event, payload, joinRef = null, ref = null, topic = 'sync') {
    if (this.socket.readyState === this.socket.OPEN) {
      this.socket.send(JSON.stringify([joinRef, ref, topic, event, payload]))
    }
  }

  async receive([joinRef, ref, topic, event, payload]) {
    const reply = (response, status = 'ok') => this.send('phx_reply', { status, response }, joinRef, ref, topic)
    const fail = (code, message, more = {}) => reply({ code, message, ...more }, 'error')
    if (event === 'heartbeat') return reply({ cursor: this.cursor })
    if (event === 'phx_join') return this.join(payload, reply, fail)
    if (this.client === null) return fail('not_joined', 'join the topic sync first')
    if (event === 'subscribe') return this.subscribe(payload.shapes, (shapes) => reply({ shapes }))
    if (event === 'unsubscribe') return this.unsubscribe(payload.refs, reply)
    if (event === 'mutate') return this.mutate(payload, reply, fail)
    if (event === 'phx_leave') {
      this.shapes.clear()
      reply({})
      return this.send('phx_close', {}, joinRef)
    }
    return fail('malformed', `there is no event ${event}`)
  }

  async join(payload, reply, fail) {
    if (payload.protocol !== 1) return fail('protocol_unsupported', 'this node speaks version 1')
    if (payload.required?.length) return fail('capability_unsupported', `no capability ${payload.required[0]}`)
    this.client = payload.client ?? randomUUID()
    this.shapes.clear()
    const head = { protocol: 1, capabilities: [], database: this.node.installation, subject: '', client: this.client }
    await this.subscribe(payload.shapes, (shapes) => reply({ ...head, shapes }))
  }

  /** The answers are sent before the rows; a shape is always loaded in full, for nothing older is kept. */
  async subscribe(asked, answer) {
    const accepted = []
    const answers = asked.map((shape) => {
      const { error, ...held } = this.define(shape)
      if (error) return { ref: shape.ref, error }
      accepted.push({ ...held, ref: shape.ref, reason: shape.have ? 'horizon' : 'first' })
      return { ref: shape.ref, ok: true }
    })
    answer(answers)
    const snapshot = await this.node.refresh()
    for (const { id, ref, table, keep, reason } of accepted) {
      const columns = table.columns.map(({ name, type, wire }) => ({ name, type, wire }))
      const fingerprint = digest([columns, table.key])
      this.send('shape', { ref, shape: id, fingerprint, table: ['public', table.name], key: table.key, columns })
      const held = this.shapes.get(id) ?? { refs: new Set(), table, keep, shown: new Map() }
      held.refs.add(ref)
      held.shown = new Map(this.rowsOf(held, snapshot))
      this.shapes.set(id, held)
      this.send('rows', { shape: id, reset: reason, put: [...held.shown.values()].map((row) => JSON.parse(row)) })
    }
    this.commit(snapshot)
  }

  define(shape) {
    const table = this.node.database.tables.get(shape.table.replace(/^public\./, ''))
    const refuse = (code, message) => ({ error: { code, message } })
    if (!table) return refuse('unknown_table', `there is no tracked table ${shape.table}`)
    if (shape.where) return refuse('where_unsupported', 'where is not supported')
    if (shape.columns) return refuse('unknown_column', 'the naive node sends all columns only')
    const named = shape.scope ? Object.keys(shape.scope) : []
    if (named.length === 0 && table.scope) return refuse('scope_required', `${table.name} needs the scope ${table.scope}`)
    if (named.length > 0 && named.join() !== table.scope) return refuse('unknown_scope', `${named} is no scope of ${table.name}`)
    const at = table.columns.findIndex((column) => column.name === table.scope)
    const keep = table.scope ? (row) => row[at] === shape.scope[table.scope] : () => true
    return { id: digest([table.name, shape.scope]), table, keep }
  }

  rowsOf({ table, keep }, snapshot) {
    const keyAt = table.key.map((name) => table.columns.findIndex((column) => column.name === name))
    const kept = snapshot.rows.get(table.name).filter(keep)
    return kept.map((row) => [JSON.stringify(keyAt.map((at) => row[at])), JSON.stringify(row)])
  }

  unsubscribe(refs, reply) {
    for (const [id, held] of this.shapes) {
      for (const ref of refs) held.refs.delete(ref)
      if (held.refs.size === 0) this.shapes.delete(id)
    }
    reply({})
  }

  /** Sends what changed since this session was last shown something, as one batch. */
  show(snapshot, acks = []) {
    if (this.client === null) return
    let changed = acks.length > 0
    for (const [id, held] of this.shapes) {
      const now = new Map(this.rowsOf(held, snapshot))
      const remove = [...held.shown.keys()].filter((key) => !now.has(key)).map((key) => JSON.parse(key))
      const put = [...now].filter(([key, row]) => held.shown.get(key) !== row).map(([, row]) => JSON.parse(row))
      held.shown = now
      if (remove.length + put.length === 0) continue
      changed = true
      this.send('rows', { shape: id, ...(remove.length && { remove }), ...(put.length && { put }) })
    }
    if (acks.length > 0) this.send('ack', { mutations: acks })
    if (changed) this.commit(snapshot)
  }

  commit(snapshot) {
    this.cursor = `naive~${snapshot.lsn}`
    this.send('commit', { lsn: snapshot.lsn, xid: null, cursor: this.cursor })
  }

  async mutate({ mutations }, reply, fail) {
    const log = this.node.outcomes.get(this.client) ?? []
    for (const { n, id, kind, ops } of mutations) {
      const at = Number(n) - 1
      if (at > 0 && log.length === 0) return this.renew(fail, 'unknown_client')
      if (at > log.length) return fail('gap', 'a mutation before this one is missing', { last: String(log.length) })
      if (log[at] && log[at].id !== id) return this.renew(fail, 'renumber')
      if (!log[at]) {
        const outcome = await this.node.decide(kind, ops)
        log.push({ n, id, ...outcome })
        this.node.outcomes.set(this.client, log)
      }
    }
    reply({})
    await this.node.publish(this, mutations.map(({ n }) => log[Number(n) - 1]))
  }

  renew(fail, code) {
    this.client = randomUUID()
    fail(code, 'take this client id and number the outbox anew', { client: this.client })
  }
}
