-- One JSON text for each tracked table that can be followed; read by catalog.rs. Not followed, as if it were not
-- tracked: a table whose primary key is not the one that its log names, one without its logs or triggers, and one that is
-- not in our publications as `track` put it there. The placeholder says which of the rest are asked for.
-- Names are unquoted here; the generation is in log_id and the horizon is not: collecting old entries must not make
-- clients load anew.
with recursive ours as (
  select t.*, c.relname, c.relkind, n.nspname, pk.indkey, leaves.of as leaves
  from lockstep.tracked t
  join pg_catalog.pg_class c on c.oid = t.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_index pk on pk.indrelid = c.oid and pk.indisprimary and pk.indisvalid
  cross join lateral (
    select array[to_regproc('lockstep.put_' || t.log), to_regproc('lockstep.gone_' || t.log),
      to_regproc('lockstep.moved_' || t.log)]::oid[] as by_row, to_regproc('lockstep.truncated_' || t.log)::oid as truncated
  ) f
  -- The relations that hold rows.
  cross join lateral (
    select case when c.relkind = 'p'
      then array(select p.relid::oid from pg_catalog.pg_partition_tree(c.oid) p where p.isleaf order by p.relid)
      else array[c.oid] end as of
  ) leaves
  where {only} and (pk.indkey::int2[])[0:pk.indnkeyatts - 1] = t.key_attnums
    and to_regclass('lockstep.changes_' || t.log) is not null
    and to_regproc('lockstep.key_' || t.log) is not null
    -- All our triggers, none disabled: what goes past the log would be missed. A dump that was restored elsewhere brings
    -- the numbers of tables along, and other tables may have them there.
    and 5 = (
      select count(*) from pg_catalog.pg_trigger g
      where g.tgrelid = c.oid and g.tgenabled in ('A', 'O') and g.tgfoid = any(f.by_row || f.truncated))
    -- Partitions have clones of those for rows.
    and (c.relkind <> 'p' or not exists (
      select from unnest(leaves.of) l(relation) where 4 <> (
        select count(*) from pg_catalog.pg_trigger g
        where g.tgrelid = l.relation and g.tgenabled in ('A', 'O') and g.tgfoid = any(f.by_row))))
    and not exists (
      select from unnest(t.key_attnums || t.scope_attnums) u(attnum)
      where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = t.relation and a.attnum = u.attnum and not a.attisdropped))
),
-- Generated columns are in the stream from 18 on, if they are stored and the publication says so.
generated as (
  select exists (
    select from pg_catalog.pg_publication p
    where p.pubname = 'lockstep_tables' and to_jsonb(p) ->> 'pubgencols' = 's') as stored
),
travels as (
  select distinct a.atttypid
  from ours o
  join pg_catalog.pg_attribute a on a.attrelid = o.relation and a.attnum > 0 and not a.attisdropped
  where a.attgenerated = '' or a.attgenerated = 's' and (select stored from generated)
),
-- What the values of a type are made of. Built-in types never change.
part as (
  select distinct atttypid as root, atttypid as type from travels where atttypid >= 16384
  union
  select p.root, x.type
  from part p, lateral (
    select t.typelem from pg_catalog.pg_type t where t.oid = p.type
    union all select t.typbasetype from pg_catalog.pg_type t where t.oid = p.type
    union all select r.rngsubtype from pg_catalog.pg_range r where p.type in (r.rngtypid, r.rngmultitypid)
    union all select a.atttypid from pg_catalog.pg_type t
      join pg_catalog.pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
      where t.oid = p.type and t.typtype = 'c'
  ) x(type)
  where x.type >= 16384
),
made_of as (
  select p.root, string_agg(concat_ws(':', p.type::text,
    (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = p.type),
    (select string_agg(concat_ws(' ', a.attnum, a.atttypid::text, a.attisdropped), ',' order by a.attnum)
       from pg_catalog.pg_type t join pg_catalog.pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0
       where t.oid = p.type and t.typtype = 'c')), '/' order by p.type) as text
  from part p group by p.root
),
-- The base types of domains.
base as (
  select distinct atttypid as root, atttypid as type from travels
  union
  select b.root, t.typbasetype from base b join pg_catalog.pg_type t on t.oid = b.type where t.typtype = 'd'
)
select jsonb_build_object(
  'oid', o.relation::int8,
  'log', o.log,
  'tombstones', tombstones.relation::int8,
  'schema', o.nspname,
  'name', o.relname,
  'columns', cols.columns,
  'key', o.key_attnums,
  'scope_columns', o.scope_attnums,
  'scopes', coalesce((
    select jsonb_agg(s.attnums order by s.scope) from lockstep.scopes s where s.log = o.log), '[]'),
  'schema_id', md5(concat_ws('/', o.nspname, o.relname, o.key_attnums::text)),
  -- Our triggers' rows: "disable trigger all … enable trigger all" leaves no entry in the logs. A partition's own trigger
  -- for TRUNCATE may come later, and its absence shows in the storage.
  'log_id', md5(concat_ws('/', o.log, o.generation, tables.oid::text, tables.xmin::text, tombstones.oid::text, tombstones.xmin::text,
    (select string_agg(s.attnums::text, ',' order by s.scope) from lockstep.scopes s where s.log = o.log),
    (select string_agg(concat_ws(':', g.tgrelid::text, g.tgname, g.tgenabled, g.xmin::text), ',' order by g.tgrelid, g.tgname)
       from pg_catalog.pg_trigger g
       where g.tgname like 'lockstep\_%' and (g.tgname <> 'lockstep_truncate' or g.tgrelid = o.relation)
         and g.tgrelid = any(o.leaves || o.relation)))),
  -- Rows come and go with partitions without a trace, and a rewrite may compute them anew.
  'storage_id', md5(coalesce((
    select string_agg(concat_ws(':', l.relation::text, c.relfilenode::text), ',' order by l.relation)
      from unnest(o.leaves) l(relation) join pg_catalog.pg_class c on c.oid = l.relation), ''))
)::text
from ours o
join lateral (
  select r.oid, r.xmin from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
  where r.prrelid = o.relation and p.pubname = 'lockstep_tables'
) tables on true
join lateral (
  select r.oid, r.xmin, r.prrelid as relation
  from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid
  where r.prrelid = to_regclass('lockstep.tombstones_' || o.log) and p.pubname = 'lockstep_tombstones'
) tombstones on true
cross join lateral (
  select
    jsonb_agg(jsonb_build_object(
      'name', a.attname,
      'attnum', a.attnum,
      'type_oid', a.atttypid::int8,
      'type_name', format_type(a.atttypid, a.atttypmod),
      'type_sql', format('%I.%I', tn.nspname, ty.typname),
      'base_oid', case when ty.typtype = 'd' then bt.oid::int8 end,
      'base_sql', case when ty.typtype = 'd' then format('%I.%I', bn.nspname, bt.typname) end,
      'is_enum', ty.typtype = 'e',
      'labels', coalesce((
        select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = bt.oid), '[]'),
      'collation', case when not k.collisdeterministic then 'nondeterministic' when k.bytes then 'bytes' else 'rules' end,
      'identity', md5(concat_ws('/', format_type(a.atttypid, a.atttypmod), a.atttypid::text, bt.oid::text, a.attcollation::text, a.attgenerated,
        (select m.text from made_of m where m.root = a.atttypid))),
      -- By name: a partition may have its columns in another order.
      'missing', case when o.relkind <> 'p' then jsonb_build_array(a.attmissingval::text) else coalesce((
        select jsonb_agg(distinct l.attmissingval::text)
        from pg_catalog.pg_attribute l
        where l.attrelid = any(o.leaves) and l.attname = a.attname and not l.attisdropped), '[]') end
    ) order by a.attnum) as columns
  -- Not the rows of travels: those would be looked through once for each table.
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type ty on ty.oid = a.atttypid
  join pg_catalog.pg_namespace tn on tn.oid = ty.typnamespace
  join base b on b.root = a.atttypid
  join pg_catalog.pg_type bt on bt.oid = b.type and bt.typtype <> 'd'
  join pg_catalog.pg_namespace bn on bn.oid = bt.typnamespace
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
  where a.attrelid = o.relation and a.attnum > 0 and not a.attisdropped
    and (a.attgenerated = '' or a.attgenerated = 's' and (select stored from generated))
) cols
order by o.relation
