// The list of identities, in order of user id.

import { PagedList } from "/ui/lib/paged_list.js";

const ALL = "/api/v1/identities";

export const identityPath = (userId) => `${ALL}/${encodeURIComponent(userId)}`;

export const identityList = (page, query) => new PagedList(ALL, (identity) => identity.user_id, page, query);
