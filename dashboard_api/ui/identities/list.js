// People in order of user id.

import { PagedList } from "/ui/lib/paged_list.js";

const ALL = "/api/v1/identities";

export const path = (userId) => `${ALL}/${encodeURIComponent(userId)}`;

export const peopleList = (page, query) => new PagedList(ALL, (person) => person.user_id, page, query);
