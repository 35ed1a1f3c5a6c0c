-- Row triggers: statements on a partition do not fire the statement triggers of its partitioned table, and the apply
-- worker of a subscription fires row triggers only. PostgreSQL clones them to all partitions, also to later ones.
create or replace trigger lockstep_insert after insert on {table}
  for each row execute function lockstep.put_{n}();
create or replace trigger lockstep_update after update on {table}
  for each row execute function lockstep.put_{n}();
create or replace trigger lockstep_delete after delete on {table}
  for each row execute function lockstep.gone_{n}();
