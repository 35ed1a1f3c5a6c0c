-- Statement triggers, which cost a statement over many rows less than a call for each of them.
create or replace trigger lockstep_insert after insert on {table}
  referencing new table as new_rows for each statement execute function lockstep.put_{n}();
create or replace trigger lockstep_update after update on {table}
  referencing new table as new_rows for each statement execute function lockstep.put_{n}();
create or replace trigger lockstep_delete after delete on {table}
  referencing old table as old_rows for each statement execute function lockstep.gone_{n}();
