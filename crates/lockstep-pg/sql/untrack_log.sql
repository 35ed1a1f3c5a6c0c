drop function if exists lockstep.put_{n}, lockstep.gone_{n}, lockstep.moved_{n}, lockstep.truncated_{n};
drop function if exists lockstep.key_{n};
drop table if exists lockstep.changes_{n}, lockstep.tombstones_{n};
drop sequence if exists lockstep.entry_{n};
delete from lockstep.tracked where log = {n};
