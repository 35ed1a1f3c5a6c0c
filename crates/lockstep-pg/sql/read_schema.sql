-- One JSON text for each tracked table that exists: what an application's types are made from; read by schema.rs.
select jsonb_build_object(
  'schema', n.nspname,
  'name', c.relname,
  'key', (select jsonb_agg(a.attname order by k.at)
    from unnest(t.key_attnums) with ordinality k (attnum, at)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum),
  'columns', (select jsonb_agg(jsonb_build_object(
      'name', a.attname,
      'type_oid', b.type::int8,
      'type', format_type(b.type, b.modifier),
      'enum_name', case when ty.typtype = 'e' then ty.typname end,
      'labels', coalesce((
        select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = ty.oid), '[]'),
      'not_null', b.not_null,
      'has_default', b.has_default,
      'fixed', a.attidentity = 'a' or a.attgenerated <> ''
    ) order by a.attnum)
    from pg_catalog.pg_attribute a
    -- A domain's values travel as those of the type at its base.
    cross join lateral (
      with recursive d(type, modifier, not_null, has_default, depth) as (
        select a.atttypid, a.atttypmod, a.attnotnull, a.atthasdef or a.attidentity <> '', 0
        union all
        select t.typbasetype, t.typtypmod, d.not_null or t.typnotnull, d.has_default or t.typdefault is not null, d.depth + 1
        from d join pg_catalog.pg_type t on t.oid = d.type and t.typtype = 'd')
      select * from d order by depth desc limit 1
    ) b
    join pg_catalog.pg_type ty on ty.oid = b.type
    -- What travels is decided by read_catalog.sql in the same words.
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      and (a.attgenerated = '' or a.attgenerated = 's' and exists (
        select from pg_catalog.pg_publication p
        where p.pubname = 'lockstep_tables' and to_jsonb(p) ->> 'pubgencols' = 's'))),
  'references', coalesce((select jsonb_agg(jsonb_build_object(
      'name', f.conname,
      'schema', tn.nspname,
      'table', tc.relname,
      'from', (select jsonb_agg(a.attname order by k.at)
        from unnest(f.conkey) with ordinality k (attnum, at)
        join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum),
      'to', (select jsonb_agg(a.attname order by k.at)
        from unnest(f.confkey) with ordinality k (attnum, at)
        join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum),
      -- one row at most refers to each: the reverse is one row too
      'is_unique', exists (select from pg_catalog.pg_index i
        where i.indrelid = f.conrelid and i.indisunique and i.indpred is null and i.indexprs is null
          and (select array_agg(x order by x) from unnest(i.indkey::int2[]) with ordinality u (x, at) where u.at <= i.indnkeyatts)
            = (select array_agg(x order by x) from unnest(f.conkey) x))
    ) order by f.conname)
    from pg_catalog.pg_constraint f
    join lockstep.tracked ft on ft.relation = f.confrelid
    join pg_catalog.pg_class tc on tc.oid = f.confrelid
    join pg_catalog.pg_namespace tn on tn.oid = tc.relnamespace
    where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0), '[]')
)::text
from lockstep.tracked t
join pg_catalog.pg_class c on c.oid = t.relation
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by n.nspname, c.relname
