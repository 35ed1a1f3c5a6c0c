-- One JSON text for each tracked table that exists; read by catalog.rs.
-- The schema id has the generation and not the horizon: collecting old entries must not make clients load anew.
select jsonb_build_object(
  'oid', c.oid::int8,
  'log', t.log,
  'tombstones', to_regclass('lockstep.tombstones_' || t.log)::oid::int8,
  'schema', n.nspname,
  'name', c.relname,
  'columns', cols.columns,
  'key', t.key_attnums,
  'scope_columns', t.scope_attnums,
  'scopes', coalesce((
    select jsonb_agg(s.attnums order by s.scope) from lockstep.scopes s where s.log = t.log), '[]'),
  'schema_id', md5(concat_ws('/',
    n.nspname, c.relname, c.relreplident, t.log, t.key_attnums::text, t.generation, cols.columns::text, cols.labels,
    (select string_agg(concat_ws(':', g.tgname, g.tgenabled, g.xmin::text), ',' order by g.tgname)
       from pg_catalog.pg_trigger g
       where g.tgrelid = c.oid and g.tgname like 'lockstep%'),
    -- Rows come and go with partitions without a trace. A partition without our own trigger for TRUNCATE loses them
    -- without a trace as well, but then it has other storage.
    (select string_agg(concat_ws(':', p.relid::oid::text,
         (select string_agg(concat_ws('.', g.tgname, g.tgenabled, g.xmin::text), '+' order by g.tgname)
            from pg_catalog.pg_trigger g where g.tgrelid = p.relid and g.tgname like 'lockstep%'),
         case when not exists (select from pg_catalog.pg_trigger g
                where g.tgrelid = p.relid and g.tgname = 'lockstep_truncate' and g.tgenabled = 'A')
              then l.relfilenode::text end), ',' order by p.relid)
       from pg_catalog.pg_partition_tree(c.oid) p join pg_catalog.pg_class l on l.oid = p.relid
       where p.isleaf and p.relid <> c.oid),
    (select string_agg(s.attnums::text, ',' order by s.scope) from lockstep.scopes s where s.log = t.log),
    (select count(*) from pg_catalog.pg_publication_rel r where r.prrelid = c.oid)))
)::text
from lockstep.tracked t
join pg_catalog.pg_class c on c.oid = t.relation
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select
    jsonb_agg(jsonb_build_object(
      'name', a.attname,
      'attnum', a.attnum,
      'type_oid', a.atttypid::int8,
      'type_name', format_type(a.atttypid, a.atttypmod),
      'type_sql', format('%I.%I', tn.nspname, ty.typname),
      'is_enum', ty.typtype = 'e',
      'labels', coalesce((
        select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = ty.oid), '[]'),
      'collation', case when not k.collisdeterministic then 'nondeterministic' when k.bytes then 'bytes' else 'rules' end
    ) order by a.attnum) as columns,
    (select string_agg(e.enumtypid || e.enumlabel, ',' order by e.enumtypid, e.enumsortorder)
       from pg_catalog.pg_enum e
       where e.enumtypid in (select x.atttypid from pg_catalog.pg_attribute x where x.attrelid = c.oid)) as labels
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type ty on ty.oid = a.atttypid
  join pg_catalog.pg_namespace tn on tn.oid = ty.typnamespace
  -- The catalog's columns for the provider's locale have other names in each version, hence to_jsonb.
  left join lateral (
    select k.collisdeterministic, case x.provider
        when 'c' then x.collate in ('C', 'POSIX') and x.ctype in ('C', 'POSIX')
        when 'b' then x.locale = 'C'
        else false end as bytes
    from pg_catalog.pg_collation k
    join pg_catalog.pg_database d on d.datname = current_database()
    cross join lateral (
      select
        case k.collprovider when 'd' then coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') else k.collprovider::text end
          as provider,
        case k.collprovider when 'd' then d.datcollate::text else to_jsonb(k) ->> 'collcollate' end as collate,
        case k.collprovider when 'd' then d.datctype::text else to_jsonb(k) ->> 'collctype' end as ctype,
        case k.collprovider when 'd' then to_jsonb(d) ->> 'datlocale' else to_jsonb(k) ->> 'colllocale' end as locale
    ) x
    where k.oid = a.attcollation
  ) k on true
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
) cols
order by c.oid
