-- Who holds locks that conflict with SHARE ROW EXCLUSIVE on the relations $1, or any lock on the relations $2.
-- A prepared transaction has no pid. It keeps a lock on its own transaction id under the same virtual transaction, which
-- is '-1/xid' after a restart (manual, pg_locks) and before it that of the session that prepared it.
select
  l.pid,
  p.gid,
  a.state,
  to_char(coalesce(a.xact_start, p.prepared) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') as since,
  left(a.query, 200) as query
from pg_locks l
left join pg_stat_activity a on a.pid = l.pid
left join pg_locks own on l.pid is null and own.pid is null and own.locktype = 'transactionid' and own.granted
  and own.virtualtransaction = l.virtualtransaction
left join pg_prepared_xacts p on p.transaction = own.transactionid
where l.locktype = 'relation' and l.granted
  and l.database = (select oid from pg_database where datname = current_database())
  and l.pid is distinct from pg_backend_pid()
  and (l.relation = any ($2)
    or l.relation = any ($1) and l.mode not in ('AccessShareLock', 'RowShareLock'))
order by coalesce(a.xact_start, p.prepared)
limit 5
