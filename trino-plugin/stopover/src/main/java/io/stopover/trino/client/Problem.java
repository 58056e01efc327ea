/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import static java.util.Objects.requireNonNull;

/**
 * An error answered by a daemon (RFC 9457). Code decides by {@code slug}, then by
 * {@code retryable}; title and detail are for people.
 */
public record Problem(String slug, int status, String title, String detail, boolean retryable)
{
    private static final String TYPE_PREFIX = "urn:stopover:problem:";
    /** Slug of an error that does not come from a daemon but from something in between. */
    public static final String UNKNOWN = "unknown";

    public Problem
    {
        requireNonNull(slug, "slug is null");
        requireNonNull(title, "title is null");
        requireNonNull(detail, "detail is null");
    }

    /** Parses problem+json; anything else becomes a problem of unknown type. */
    public static Problem parse(int status, byte[] body)
    {
        try {
            JsonMap json = JsonMap.parse(body);
            if (json.string("type").startsWith(TYPE_PREFIX)) {
                return of(json, status);
            }
        }
        catch (MalformedJsonException e) {
            // not from a daemon, for example the error page of a proxy
        }
        return ofStranger(status, status == 408 || status == 429 || status >= 500);
    }

    /** A response of something in between. */
    static Problem ofStranger(int status, boolean retryable)
    {
        return new Problem(
                UNKNOWN,
                status,
                "HTTP status " + status,
                "the response does not come from a Stopover daemon",
                retryable);
    }

    static Problem of(JsonMap json, int status)
            throws MalformedJsonException
    {
        String type = json.string("type");
        return new Problem(
                type.substring(type.lastIndexOf(':') + 1),
                json.has("status") ? (int) json.integer("status") : status,
                json.has("title") ? json.string("title") : type,
                json.has("detail") ? json.string("detail") : "",
                json.has("retryable") && json.bool("retryable"));
    }

    public boolean is(String... slugs)
    {
        for (String candidate : slugs) {
            if (slug.equals(candidate)) {
                return true;
            }
        }
        return false;
    }
}
