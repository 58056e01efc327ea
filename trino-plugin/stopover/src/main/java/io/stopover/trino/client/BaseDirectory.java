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

import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * A base directory, as a daemon describes it.
 *
 * @param id the same at every daemon that has it; empty until the daemon has read it
 * @param state what the fleet does with it; empty if it is not on the fleet's list of members
 */
record BaseDirectory(String name, String uri, Optional<String> id, Optional<String> state)
{
    private static final String ABANDONED = "abandoned";

    BaseDirectory
    {
        requireNonNull(name, "name is null");
        requireNonNull(uri, "uri is null");
        requireNonNull(id, "id is null");
        requireNonNull(state, "state is null");
    }

    static BaseDirectory of(JsonMap json)
            throws MalformedJsonException
    {
        return new BaseDirectory(
                json.string("name"),
                json.string("uri"),
                json.has("id") ? Optional.of(json.string("id")) : Optional.empty(),
                json.has("state") ? Optional.of(json.string("state")) : Optional.empty());
    }

    /** Whether it may contain pages, according to the daemon. */
    boolean isInUse()
    {
        return state.isPresent() && !isAbandoned();
    }

    boolean isAbandoned()
    {
        return state.filter(ABANDONED::equals).isPresent();
    }

    @Override
    public String toString()
    {
        return "%s (%s at %s)".formatted(name, id.orElse("not identified yet"), uri);
    }
}
