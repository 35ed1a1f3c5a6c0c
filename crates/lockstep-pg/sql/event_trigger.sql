-- Says in the stream that the schema changes, so that nodes look at once and not within two seconds. Only a superuser may
-- create it (and the main user of some hosted databases); nothing depends on it. Whatever happens in it, the
-- application's statement goes on.
create or replace function lockstep.say_schema_change() returns event_trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $lockstep$
begin
  perform pg_logical_emit_message(true, 'lockstep.schema', '');
exception when others then
  null;
end
$lockstep$;
revoke all on function lockstep.say_schema_change from public;

do $lockstep$
begin
  if not exists (select from pg_event_trigger where evtname = 'lockstep_schema') then
    create event trigger lockstep_schema on ddl_command_end
      when tag in ('ALTER TABLE', 'CREATE TABLE', 'DROP TABLE', 'ALTER TYPE', 'DROP TYPE', 'ALTER SCHEMA', 'DROP SCHEMA',
        'ALTER PUBLICATION', 'DROP PUBLICATION', 'CREATE TRIGGER', 'ALTER TRIGGER', 'DROP TRIGGER', 'ALTER FUNCTION',
        'DROP FUNCTION')
      execute function lockstep.say_schema_change();
    -- Also under session_replication_role = replica.
    alter event trigger lockstep_schema enable always;
  end if;
exception when insufficient_privilege then
  raise notice 'without a superuser no event trigger: nodes notice a changed schema within two seconds';
end
$lockstep$;
