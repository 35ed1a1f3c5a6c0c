-- What decides whether and how a table ($1, its oid) can be tracked.
select
  format('%I.%I', n.nspname, c.relname) as quoted,
  quote_literal(format('%I.%I', n.nspname, c.relname)) as literal,
  n.nspname::text as schema,
  c.relkind::text as kind,
  c.relpersistence::text as persistence,
  c.relreplident::text as identity,
  c.relispartition as is_partition,
  exists (select from pg_inherits i where c.oid in (i.inhrelid, i.inhparent)) as inherits,
  exists (select from pg_subscription_rel s where s.srrelid = c.oid) as subscribed,
  pk.indimmediate and pk.indisvalid as key_immediate,
  -- Columns that an index only INCLUDEs come after the key columns. An int2vector counts from 0.
  (pk.indkey::int2[])[0:pk.indnkeyatts - 1] as key_attnums,
  array(
    select format('%I', g.tgname) from pg_trigger g join pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = c.oid and p.pronamespace = to_regnamespace('lockstep') order by 1
  ) as our_triggers,
  (
    select g.tgname::text from pg_trigger g join pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = c.oid and p.pronamespace <> to_regnamespace('lockstep')
      and g.tgname in ('lockstep_insert', 'lockstep_update', 'lockstep_delete', 'lockstep_truncate') limit 1
  ) as trigger_taken,
  exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = c.oid and p.pubname = 'lockstep_tables'
  ) as published
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_index pk on pk.indrelid = c.oid and pk.indisprimary
where c.oid = $1
