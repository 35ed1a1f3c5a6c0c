-- Each log and the table it is of, as one JSON text per log; read by doctor.rs.
select jsonb_build_object(
  'log', t.log,
  'oid', t.relation::int8,
  'name', case when c.oid is not null then format('%I.%I', n.nspname, c.relname) end,
  'kind', c.relkind,
  'persistence', c.relpersistence,
  'identity', c.relreplident,
  'row_security', coalesce(c.relrowsecurity, false),
  'key', pk.indrelid is not null and pk.indimmediate and pk.indisvalid
    and (pk.indkey::int2[])[0:pk.indnkeyatts - 1] = t.key_attnums,
  'triggers', t.triggers,
  'in_place', (
    select count(*) from pg_trigger g where g.tgrelid = t.relation and g.tgfoid = any(ours.functions)),
  'always', (
    select count(*) from pg_trigger g
    where g.tgrelid = t.relation and g.tgfoid = any(ours.functions) and g.tgenabled = 'A'),
  -- Partitions that lack a trigger: of one that came later, only that for TRUNCATE.
  'partitions_without', (
    select coalesce(jsonb_agg(format('%I.%I', ln.nspname, l.relname) order by l.relname), '[]')
    from pg_partition_tree(t.relation) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> t.relation and 5 <> (
      select count(*) from pg_trigger g
      where g.tgrelid = p.relid and g.tgenabled = 'A' and g.tgfoid = any(ours.functions))),
  'unlogged_partitions', (
    select coalesce(jsonb_agg(format('%I.%I', ln.nspname, l.relname) order by l.relname), '[]')
    from pg_partition_tree(t.relation) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> t.relation and l.relpersistence <> 'p'),
  'partitions_of_other_identity', (
    select coalesce(jsonb_agg(format('%I.%I', ln.nspname, l.relname) order by l.relname), '[]')
    from pg_partition_tree(t.relation) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> t.relation and l.relreplident not in ('d', 'f')),
  'generated', (
    select coalesce(jsonb_agg(quote_ident(a.attname) order by a.attnum), '[]') from pg_attribute a
    where a.attrelid = c.oid and a.attgenerated <> '' and not a.attisdropped
      -- From 18 on stored ones are in the stream, if the publication says so.
      and not (a.attgenerated = 's' and exists (
        select from pg_publication p
        where p.pubname = 'lockstep_tables' and to_jsonb(p) ->> 'pubgencols' = 's'))),
  'stored', (
    select coalesce(jsonb_agg(quote_ident(a.attname) order by a.attnum), '[]') from pg_attribute a
    where a.attrelid = c.oid and a.attgenerated = 's' and not a.attisdropped),
  'subscribed', exists (
    select from pg_subscription_rel s
    where s.srrelid = c.oid or s.srrelid in (select p.relid from pg_partition_tree(c.oid) p)),
  'published', exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = c.oid and p.pubname = 'lockstep_tables'),
  'restricted', exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = c.oid and p.pubname = 'lockstep_tables'
      and (to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null)),
  'tombstones_published', exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = to_regclass('lockstep.tombstones_' || t.log) and p.pubname = 'lockstep_tombstones'),
  'logs', to_regclass('lockstep.changes_' || t.log) is not null and to_regclass('lockstep.tombstones_' || t.log) is not null,
  -- What pg_class estimates: counting a large log would take longer than all the rest.
  'entries', (
    select coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint from pg_class l
    where l.oid in (to_regclass('lockstep.changes_' || t.log), to_regclass('lockstep.tombstones_' || t.log))),
  'bytes', coalesce(pg_total_relation_size(to_regclass('lockstep.changes_' || t.log)), 0)
    + coalesce(pg_total_relation_size(to_regclass('lockstep.tombstones_' || t.log)), 0),
  'horizon', t.horizon,
  'horizon_seconds', greatest(0, floor(extract(epoch from clock_timestamp() - greatest(t.tracked_at,
    (select max(k.at) from lockstep.clock k where k.xid <= t.horizon)))))
)::text
from lockstep.tracked t
cross join lateral (
  select array(
    select to_regproc(format('lockstep.%s_%s', f, t.log)) from unnest(array['put', 'gone', 'moved', 'truncated']) f
  )::oid[] as functions
) ours
left join pg_class c on c.oid = t.relation
left join pg_namespace n on n.oid = c.relnamespace
left join pg_index pk on pk.indrelid = c.oid and pk.indisprimary
order by t.log
