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

import io.stopover.trino.wire.MalformedStreamException;

/** A response is not JSON, or lacks a member, or has one of another type. */
public final class MalformedJsonException
        extends MalformedStreamException
{
    public MalformedJsonException(String message)
    {
        super(message);
    }

    public MalformedJsonException(String message, Throwable cause)
    {
        super(message, cause);
    }
}
