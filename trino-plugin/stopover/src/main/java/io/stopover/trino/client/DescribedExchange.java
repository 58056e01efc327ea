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

import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;

import java.util.Optional;

import static java.util.Objects.requireNonNull;

/**
 * An exchange, with what a daemon needs to know about it.
 *
 * @param name globally unique id of the exchange at the daemons
 * @param descriptor what was announced, sealed by a daemon; empty before the announcement
 */
public record DescribedExchange(String name, Optional<String> descriptor)
{
    private static final String HEADER = "Stopover-Exchange";

    public DescribedExchange
    {
        requireNonNull(name, "name is null");
        requireNonNull(descriptor, "descriptor is null");
    }

    String path()
    {
        return "/v1/exchanges/" + name;
    }

    /** The same request, from which a daemon learns what the exchange is. */
    <T extends HttpUriRequestBase> T describe(T request)
    {
        descriptor.ifPresent(text -> request.setHeader(HEADER, text));
        return request;
    }

    @Override
    public String toString()
    {
        return name;
    }
}
