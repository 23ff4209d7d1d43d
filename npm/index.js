/**
 * The npm package pocketriver: live queries, asking, and the types of what they give.
 *
 * @module
 */

export { ask, AskError } from "../pb_public/ask.js";
export { liveQuery } from "../pb_public/live-query.js";

/** @typedef {import("../pb_public/ask.js").Question} Question */
/** @typedef {import("../pb_public/ask.js").Waiting} Waiting */

/** @typedef {import("../pb_public/live-query.js").Query} Query */

/**
 * @template [T=import("pocketbase").RecordModel]
 * @typedef {import("../pb_public/live-query.js").Result<T>} Result
 */

/**
 * A record of PocketRiver's collection. Name the shape of your workflow's data:
 * AiContent<{ summary: string }>.
 *
 * @template [Data=any]
 * @typedef {object} AiContent
 * @property {string} id
 * @property {string} collectionId
 * @property {string} collectionName
 * @property {string} title
 * @property {string} body
 * @property {string} category
 * @property {Record<string, any>} metadata all of customer_data, with ai_model and ai_provider if known
 * @property {Data} data the AI data
 * @property {string} channelId ModelRiver's id of the request
 * @property {string} eventName
 * @property {string} userId whose it is; empty: everyone's
 * @property {string} source
 * @property {string} created
 * @property {string} updated
 */

/**
 * A record of the collection aiRequests: what was asked, and what became of it.
 *
 * @typedef {object} AiRequest
 * @property {string} id
 * @property {string} collectionId
 * @property {string} collectionName
 * @property {string} workflow
 * @property {Record<string, any>} input
 * @property {string} userId who asked
 * @property {"queued" | "sent" | "answered" | "failed"} state
 * @property {string} channelId ModelRiver's id of the request, once it took it
 * @property {string} record id of the first answer in aiContent
 * @property {string} error why it failed
 * @property {number} attempts
 * @property {string} nextAttempt
 * @property {string} expires until when an answer is waited for
 * @property {string} created
 * @property {string} updated
 */
