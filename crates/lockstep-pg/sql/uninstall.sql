-- Dropped by name and without CASCADE: what others have built on these tables is reported, not removed.
drop event trigger if exists lockstep_schema;
drop function if exists lockstep.say_schema_change;
drop publication if exists lockstep_tables, lockstep_tombstones;
drop table if exists
  lockstep.clock, lockstep.incarnations, lockstep.mutations, lockstep.clients, lockstep.scopes, lockstep.tracked, lockstep.installation;
drop schema if exists lockstep;
