-- A list that is long enough to see a first load: 20,000 to-dos, for a database with schema.sql.

insert into lists (id, name, position, archived) values
  ('11111111-0000-4000-8000-00000000000a', 'Archive', 1000, true);

insert into members (id, list_id, name, colour) values
  ('22222222-0000-4000-8000-00000000000a', '11111111-0000-4000-8000-00000000000a', 'Ada', 'blue'),
  ('22222222-0000-4000-8000-00000000000b', '11111111-0000-4000-8000-00000000000a', 'Linus', 'green');

insert into todos (list_id, title, done, assignee, created_at)
select '11111111-0000-4000-8000-00000000000a',
       format('%s %s, part %s',
         (array['Clean', 'Mend', 'Sort', 'Paint', 'Oil', 'Measure', 'Replace', 'Fetch'])[1 + n % 8],
         (array['the gutters', 'the oars', 'the tools', 'the fence', 'the hinges', 'the shelves', 'the sails', 'the firewood', 'the lamps'])[1 + n % 9],
         1 + n / 72),
       n % 5 <> 0,
       case n % 3 when 0 then '22222222-0000-4000-8000-00000000000a'::uuid when 1 then '22222222-0000-4000-8000-00000000000b' end,
       now() - interval '5 years' + n * interval '2 hours'
from generate_series(0, 19999) as n;
