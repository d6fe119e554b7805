// Compiles only if the generated types say what the API answers.
import type { components, paths } from "./schema";

type Answer<P extends keyof paths> = paths[P] extends {
  get: { responses: { 200: { content: { "application/json": infer Body } } } };
}
  ? Body
  : never;

export const newestEvent = (page: Answer<"/api/v1/events">): string | undefined =>
  page.items[0]?.event_id;
export const softwareOf = (device: Answer<"/api/v1/devices/{device_id}">): string | undefined =>
  device.info?.software;
export const codeOf = (problem: components["schemas"]["ProblemDocument"]): string => problem.code;

// @ts-expect-error There is no such field: were the items plain objects, this would compile.
export const misspelt = (page: Answer<"/api/v1/events">) => page.items[0]?.evnt_id;
