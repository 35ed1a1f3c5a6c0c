-- The columns of a table ($1, its oid). A domain is resolved to its base type: the logs hold values that are valid
-- already, and NULLs (truncate) that a domain might refuse.
with recursive resolved as (
  select a.attnum, a.atttypid as type from pg_attribute a
  where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  union all
  select r.attnum, t.typbasetype from resolved r join pg_type t on t.oid = r.type where t.typtype = 'd'
)
select
  a.attnum,
  a.attname::text as name,
  quote_ident(a.attname) as quoted,
  a.attgenerated <> '' as generated,
  format_type(a.atttypid, a.atttypmod) as declared,
  format_type(t.oid, null) as type,
  -- Types whose equality is the equality of their text; nothing else may be a key or a scope.
  t.typtype = 'e' or t.oid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'bool'::regtype,
    'date'::regtype, 'text'::regtype, 'varchar'::regtype) as suitable,
  coalesce(c.collisdeterministic, true) as deterministic,
  case when a.attcollation <> t.typcollation then format(' collate %I.%I', n.nspname, c.collname) else '' end as collation
from pg_attribute a
join resolved r using (attnum)
join pg_type t on t.oid = r.type and t.typtype <> 'd'
left join pg_collation c on c.oid = a.attcollation
left join pg_namespace n on n.oid = c.collnamespace
where a.attrelid = $1
order by a.attnum
