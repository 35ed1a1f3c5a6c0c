-- One JSON text for each tracked table that can be followed; read by catalog.rs. Not followed, as if it were not
-- tracked: a table whose primary key is not the one that its log names, one without its logs or triggers, one with a
-- partition that is unlogged or has no replica identity of its key, and one that is not in our publications as `track` put
-- it there. The placeholder says which of the rest are asked for.
-- By rows of the catalog alone: functions that look into it (to_regclass, pg_partition_tree) see what has committed since
-- the snapshot, and half of a change would look like a table that is not to be followed.
-- Names are unquoted here; the generation is in log_id and the horizon is not: collecting old entries must not make
-- clients load anew.
with recursive ours as (
  select t.*, c.relname, c.relkind, n.nspname, pk.indkey, leaves.of as leaves
  from (
    select t.*, h.oid as home from lockstep.tracked t join pg_catalog.pg_namespace h on h.nspname = 'lockstep'
  ) t
  join pg_catalog.pg_class c on c.oid = t.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_index pk on pk.indrelid = c.oid and pk.indisprimary and pk.indisvalid
  cross join lateral (
    select
      array(select p.oid from pg_catalog.pg_proc p
        where p.pronamespace = t.home and p.proname in ('put_' || t.log, 'gone_' || t.log, 'moved_' || t.log)) as by_row,
      (select p.oid from pg_catalog.pg_proc p where p.pronamespace = t.home and p.proname = 'truncated_' || t.log)
        as truncated
  ) f
  -- The relations that hold rows.
  cross join lateral (
    select case when c.relkind = 'p' then array(
        with recursive part as (
          select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = c.oid and not i.inhdetachpending
          union all
          select i.inhrelid from part p
          join pg_catalog.pg_inherits i on i.inhparent = p.inhrelid and not i.inhdetachpending
        )
        select l.oid from part p join pg_catalog.pg_class l on l.oid = p.inhrelid and l.relkind <> 'p' order by l.oid)
      else array[c.oid] end as of
  ) leaves
  where {only} and (pk.indkey::int2[])[0:pk.indnkeyatts - 1] = t.key_attnums
    and exists (
      select from pg_catalog.pg_class l where l.relnamespace = t.home and l.relname = 'changes_' || t.log)
    and exists (select from pg_catalog.pg_proc p where p.pronamespace = t.home and p.proname = 'key_' || t.log)
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
    -- What is written into an unlogged partition is in no stream. By another index than the key's a partition names its old
    -- rows otherwise than the stream says of the partitioned table.
    and (c.relkind <> 'p' or not exists (
      select from unnest(leaves.of) l(relation)
      join pg_catalog.pg_class p on p.oid = l.relation
      where p.relpersistence <> 'p' or p.relreplident not in ('d', 'f')))
    and not exists (
      select from unnest(t.key_attnums || t.scope_attnums) u(attnum)
      where not exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid = t.relation and a.attnum = u.attnum and not a.attisdropped))
),
-- What our publications send whole: nothing is left out by kind of change, row filter or column list. The columns that say
-- so of a table exist since 15, hence to_jsonb.
published as not materialized (
  select r.prrelid as relation, p.pubname as publication, p.pubviaroot as by_root,
    concat_ws(':', p.oid::text, p.xmin::text, r.oid::text, r.xmin::text) as id
  from pg_catalog.pg_publication p
  join pg_catalog.pg_publication_rel r on r.prpubid = p.oid
  where (p.pubname = 'lockstep_tables' and p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate
      or p.pubname = 'lockstep_tombstones' and p.pubinsert)
    and to_jsonb(r) ->> 'prqual' is null and to_jsonb(r) ->> 'prattrs' is null
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
  -- for TRUNCATE may come later, and its absence shows in the storage. The publications' own rows: what they leave out for
  -- a moment never comes.
  'log_id', md5(concat_ws('/', o.log, o.generation, tables.id, tombstones.id,
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
join published tables on tables.relation = o.relation and tables.publication = 'lockstep_tables'
  and (tables.by_root or o.relkind <> 'p')
join pg_catalog.pg_class logged on logged.relnamespace = o.home and logged.relname = 'tombstones_' || o.log
join published tombstones on tombstones.relation = logged.oid and tombstones.publication = 'lockstep_tombstones'
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
