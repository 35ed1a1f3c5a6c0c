-- What decides whether and how a table ($1, its oid) can be tracked.
select
  format('%I.%I', n.nspname, c.relname) as quoted,
  quote_literal(format('%I.%I', n.nspname, c.relname)) as literal,
  n.nspname::text as schema,
  c.relkind::text as kind,
  c.relpersistence::text as persistence,
  c.relreplident::text as identity,
  c.relispartition as is_partition,
  c.relkind = 'r' and exists (select from pg_inherits i where c.oid in (i.inhrelid, i.inhparent)) as inherits,
  case when c.relispartition then pg_partition_root(c.oid)::text else '' end as root,
  -- The partitions that hold rows: quoted names and oids, and the first that cannot be followed.
  array(
    select format('%I.%I', ln.nspname, l.relname) from pg_partition_tree(c.oid) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> c.oid order by p.relid
  ) as leaves,
  array(select p.relid::oid from pg_partition_tree(c.oid) p where p.relid <> c.oid order by p.relid) as parts,
  (
    select array[format('%I.%I', ln.nspname, l.relname), case
        when l.relkind <> 'r' then 'is a foreign table'
        when l.relpersistence <> 'p' then 'is unlogged'
        when l.relreplident = 'n' then 'has replica identity NOTHING'
        when l.relreplident = 'i' then 'has another index as its replica identity'
        else 'has replica identity FULL, generated columns included' end]
    from pg_partition_tree(c.oid) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    where p.isleaf and p.relid <> c.oid
      and (l.relkind <> 'r' or l.relpersistence <> 'p' or l.relreplident in ('n', 'i') or l.relreplident = 'f'
        and exists (select from pg_attribute a where a.attrelid = l.oid and a.attgenerated <> ''))
    order by p.relid limit 1
  ) as unfit,
  -- Partitions that have our own trigger for TRUNCATE, which PostgreSQL does not clone.
  array(
    select format('%I.%I', ln.nspname, l.relname) from pg_partition_tree(c.oid) p
    join pg_class l on l.oid = p.relid join pg_namespace ln on ln.oid = l.relnamespace
    join pg_trigger g on g.tgrelid = p.relid and g.tgname = 'lockstep_truncate'
    join pg_proc f on f.oid = g.tgfoid and f.pronamespace = to_regnamespace('lockstep')
    where p.relid <> c.oid order by p.relid
  ) as leaf_triggers,
  exists (
    select from pg_subscription_rel s
    where s.srrelid = c.oid or s.srrelid in (select p.relid from pg_partition_tree(c.oid) p)
  ) as subscribed,
  pk.indimmediate and pk.indisvalid as key_immediate,
  -- Columns that an index only INCLUDEs come after the key columns. An int2vector counts from 0.
  (pk.indkey::int2[])[0:pk.indnkeyatts - 1] as key_attnums,
  array(
    select format('%I', g.tgname) from pg_trigger g join pg_proc p on p.oid = g.tgfoid
    where g.tgrelid = c.oid and g.tgparentid = 0 and p.pronamespace = to_regnamespace('lockstep') order by 1
  ) as our_triggers,
  (
    select g.tgname::text from pg_trigger g join pg_proc p on p.oid = g.tgfoid
    where (g.tgrelid = c.oid or g.tgrelid in (select t.relid from pg_partition_tree(c.oid) t))
      and p.pronamespace <> to_regnamespace('lockstep')
      and g.tgname in ('lockstep_insert', 'lockstep_update', 'lockstep_move', 'lockstep_delete', 'lockstep_truncate') limit 1
  ) as trigger_taken,
  exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = c.oid and p.pubname = 'lockstep_tables'
  ) as published,
  -- Somebody gave it a row filter or a column list in our publication. The columns that say so exist since 15.
  exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = c.oid and p.pubname = 'lockstep_tables'
      and (to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null)
  ) as restricted,
  c.relrowsecurity as row_security
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_index pk on pk.indrelid = c.oid and pk.indisprimary
where c.oid = $1
