-- The log of a table ($1, its oid), if it has one, and whether everything that writes and ships it is in place.
-- "disable trigger all; enable trigger all" leaves our triggers as ORIGIN ('O'), which is not in place.
select
  t.log, t.key_attnums, t.triggers,
  (
    select count(*) = 5 from pg_trigger g
    where g.tgrelid = t.relation and g.tgenabled = 'A' and g.tgfoid = any(ours.functions)
  )
  -- Every partition: four clones, and a trigger for TRUNCATE of its own. One that was created or attached since the
  -- table was tracked lacks the latter.
  and not exists (
    select from pg_partition_tree(t.relation) p
    where p.isleaf and p.relid <> t.relation and 5 <> (
      select count(*) from pg_trigger g
      where g.tgrelid = p.relid and g.tgenabled = 'A' and g.tgfoid = any(ours.functions)
    )
  )
  -- A horizon that this server has not reached: the log was restored from another one.
  and t.horizon <= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
  and to_regproc('lockstep.key_' || t.log) is not null
  and to_regclass('lockstep.changes_' || t.log) is not null
  and exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = to_regclass('lockstep.tombstones_' || t.log) and p.pubname = 'lockstep_tombstones'
  ) as whole
from lockstep.tracked t
cross join lateral (
  select array(
    select to_regproc(format('lockstep.%s_%s', f, t.log)) from unnest(array['put', 'gone', 'moved', 'truncated']) f
  )::oid[] as functions
) ours
where t.relation = $1
