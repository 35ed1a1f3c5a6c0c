-- Tombstones are published for routing. Their deletes are housekeeping and of no interest to anyone.
create publication lockstep_tombstones with (publish = 'insert');
