-- What keeps tracked tables from being followed, or acknowledgements from coming, as sentences for an operator: one in each
-- row, and after them, with its log's number before it, the name of every tracked table; read by catalog.rs.
select log::text, text from (
  select null::int as log, place, text from (
    select 1 as place, format('publication %s is missing; run `lockstep install`, and `lockstep track` for each table again', n) as text
    from unnest(array['lockstep_tables', 'lockstep_tombstones']) n
    where not exists (select from pg_catalog.pg_publication p where p.pubname = n)
    union all
    select 2, format('publication %s leaves out kinds of changes; run `lockstep install`', p.pubname)
    from pg_catalog.pg_publication p
    where p.pubname = 'lockstep_tables' and not (p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate and p.pubviaroot)
      or p.pubname = 'lockstep_tombstones' and not p.pubinsert
    union all
    select 3, 'publication lockstep_tables lacks lockstep.clients, so that clients'' writes stay pending; run `lockstep install`'
    from pg_catalog.pg_publication p
    where p.pubname = 'lockstep_tables' and not exists (
      select from pg_catalog.pg_publication_rel r
      where r.prpubid = p.oid and r.prrelid = to_regclass('lockstep.clients')
        and to_jsonb(r) ->> 'prqual' is null and to_jsonb(r) ->> 'prattrs' is null)
  ) defects
  union all
  select t.log, 4, format('%I.%I', n.nspname, c.relname)
  from lockstep.tracked t
  join pg_catalog.pg_class c on c.oid = t.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
) all_of_them
order by place, all_of_them.log
